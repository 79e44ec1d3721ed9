"""Who may what, on every route, derived from the served description alone.

Each operation says its scope (x-scope) and whose its objects are (x-owner), from the gateway's one
route table. No route is named here: a new one is tested as soon as it is served. What has to be
known are valid bodies, by the name of their schema.
"""
import hashlib
import http.client
import json
import os
import ssl
import unittest
import uuid

from pool import Pool, until

JOB = {"version": 1, "name": "door", "resources": {"gpu": "cpu:512MB:1"},
       "budget": {"max_total": "0.5"}, "max_duration": "5m", "commands": ["true"]}
NOWHERE = dict(JOB, name="nowhere", resources={"gpu": {"name": "no-such-model"}})

# All that a request can change, in a form that time alone does not.
STATE = """SELECT md5(concat(
    (SELECT string_agg(t::text, '' ORDER BY id) FROM project t),
    (SELECT string_agg(t::text, '' ORDER BY id) FROM provider t),
    (SELECT string_agg(t::text, '' ORDER BY id) FROM app_user t),
    (SELECT string_agg(t::text, '' ORDER BY id) FROM token t),
    (SELECT string_agg(t::text, '' ORDER BY id) FROM join_token t),
    (SELECT string_agg(t::text, '' ORDER BY id) FROM transfer t),
    (SELECT string_agg(t::text, '' ORDER BY id) FROM content t),
    (SELECT string_agg(concat(uid, state, held, charged), '' ORDER BY id) FROM job),
    (SELECT string_agg(concat(uid, state, conditions, price), '' ORDER BY id) FROM node)))"""


class Caller:
    """A credential and what it stands for."""

    def __init__(self, name, token=None, role=None, project=None, provider=None, scopes=()):
        self.name, self.token, self.role = name, token, role
        self.project, self.provider, self.scopes = project, provider, set(scopes)
        self.connection = None

    @property
    def party(self):
        return self.project or self.provider


class Route:
    def __init__(self, method, path, operation):
        self.method, self.path = method.upper(), path
        self.scope, self.owner = operation["x-scope"], operation["x-owner"]
        self.query = {p["$ref"].rpartition("/")[2] if "$ref" in p else p["name"]
                      for p in operation.get("parameters", ())}
        content = operation.get("requestBody", {}).get("content", {})
        self.raw = content and "application/json" not in content
        self.schema = content.get("application/json", {}).get("schema", {}).get("$ref", "")
        self.schema = self.schema.rpartition("/")[2]
        # "/a/v1/things/{id}": the id is one of `things`.
        words = path.split("/")
        ids = [i for i, word in enumerate(words) if word in ("{id}", "{sha256}")]
        self.of = words[ids[0] - 1] if ids else None

    def __str__(self):
        return f"{self.method} {self.path}"

    def reaches(self, caller, owner):
        """Whether this caller reaches an object of that owner here."""
        return (caller.role in ("operator", "auditor") or self.owner in ("pool", "caller")
                or (self.owner in ("project", "party") and caller.project == owner)
                or (self.owner in ("provider", "party") and caller.provider == owner)
                or (self.owner == "hardware" and caller.provider in (None, owner)))


class Authorisation(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.callers = {}
        cls.pool = Pool()
        cls.addClassCleanup(cls.close)
        cls.pool.start()
        cls.host, cls.port = cls.pool.url.removeprefix("https://").split(":")
        cls.tls = ssl.create_default_context(cafile=cls.pool.ca)
        cls.serial = 0
        for provider in ("quartz", "onyx"):
            worker = cls.pool.add_worker("n-" + provider, region=provider, devices=1, start=False)
            worker.start()
        for project in ("zebra", "yak", "office"):
            cls.pool.operator("admin", "project", "create", project)
            cls.pool.operator("admin", "deposit", project, "100")
        cls.pool.until_ready(2)
        cls.make_callers()
        cls.read_routes()
        cls.make_objects()

    @classmethod
    def close(cls):
        for caller in cls.callers.values():
            if caller.connection:
                caller.connection.close()
        cls.pool.stop(keep=os.environ.get("SHEAF_KEEP") == "1")

    # -- the cast -----------------------------------------------------------------------------

    @classmethod
    def make_caller(cls, name, role, **of):
        words = [w for key, value in of.items() for w in ("--" + key, value)]
        made = cls.pool.operator.json("token", "create", "--role", role, *words)
        of.pop("scope", None)
        cls.callers[name] = Caller(name, made["secret"], role, scopes=made["scopes"], **of)
        return made

    @classmethod
    def make_callers(cls):
        cls.callers = {"nobody": Caller("nobody")}
        revoked = cls.make_caller("revoked", "operator")
        cls.pool.operator("token", "revoke", revoked["id"])
        every = revoked["scopes"]
        for scope in every:
            cls.make_caller("without " + scope, "operator",
                            scope=",".join(s for s in every if s != scope))
        cls.make_caller("auditor", "auditor")
        cls.make_caller("zebra", "tenant", project="zebra")
        cls.make_caller("yak", "tenant", project="yak")
        cls.make_caller("quartz", "provider", provider="p-quartz")
        cls.make_caller("onyx", "provider", provider="p-onyx")
        cls.make_caller("operator", "operator", project="office")

    @classmethod
    def read_routes(cls):
        # The one path that has to be known: where the others are told.
        status, text, _ = cls.request(cls.callers["nobody"], "GET", "/openapi.json")
        assert status == 200, text
        cls.api = json.loads(text)
        cls.routes = [Route(method, path, operation) for path, item in cls.api["paths"].items()
                      for method, operation in item.items()]

    @classmethod
    def make_objects(cls):
        """A finished job with log, output and bill per tenant, an upload begun; then one object
        of each collection and owner, found by listing it as its owner."""
        cls.content = {}
        jobs = []
        for name in ("zebra", "yak"):
            client = cls.pool.make_tenant(name)
            jobs.append((client, client.submit(dict(
                JOB, name="of-" + name, commands=["echo done >/out/file; echo word"],
                outputs=["/out"]))))
        for client, job in jobs:
            ended = client.wait(job)
            assert ended["state"] == "succeeded", ended
            until("the output is stored", lambda: client.json("show", job) and int(
                cls.pool.sql("SELECT count(*) FROM job_output o JOIN job j ON j.id = o.job "
                             f"WHERE j.uid = '{job}'")))
        cls.make_caller("victim", "auditor")  # the newest token: the one that will be revoked
        del cls.callers["victim"]
        owners = {"project": ("zebra", "yak"), "provider": ("quartz", "onyx"),
                  "hardware": ("quartz", "onyx"), "party": ("zebra", "yak", "quartz", "onyx"),
                  "pool": ("operator",)}
        cls.objects = {"uploads": [(cls.upload(cls.callers[name], name), name)
                                   for name in ("zebra", "yak")]}
        for of in {route.of for route in cls.routes if route.of} - {"uploads"}:
            lister = next(r for r in cls.routes
                          if r.method == "GET" and r.path.endswith("/" + of))
            cls.objects[of] = []
            for name in owners[lister.owner]:
                status, text, _ = cls.request(cls.callers[name], "GET", lister.path)
                assert status == 200, text
                first = json.loads(text)["items"][0]["id"]
                cls.objects[of].append((first, cls.callers[name].party))
        cls.marks = {}
        for items in cls.objects.values():
            for ident, party in items:
                cls.marks.setdefault(party, {f'"{party}"'}).add(ident)

    @classmethod
    def upload(cls, caller, owner):
        """Content of its own, sent and not committed."""
        data = os.urandom(16).hex().encode()
        sha = hashlib.sha256(data).hexdigest()
        cls.content[sha] = data
        part = next(r for r in cls.routes if r.of == "uploads" and r.raw)
        begin = part.path[:part.path.index("/{")]
        named = {"project": owner} if caller.role == "operator" else {}
        for method, path, body, kind in (
                ("POST", begin, json.dumps({"sha256": sha, "size": len(data), **named}),
                 "application/json"),
                (part.method, cls.fill(part, caller, sha, owner), data, "")):
            status, text, _ = cls.request(caller, method, path, body, kind)
            assert status in range(200, 300), (caller.name, path, text)
        return sha

    # -- requests -----------------------------------------------------------------------------

    @staticmethod
    def fill(route, caller, ident, owner):
        path = route.path
        for name, value in (("id", ident), ("sha256", ident), ("rank", 0), ("n", 0),
                            ("code", "not-found"), ("file", Pool.PACKAGE)):
            path = path.replace("{" + name + "}", str(value))
        assert "{" not in path, f"{route}: a new kind of parameter"
        if caller.role == "operator" and "project" in route.query:
            path += f"?project={owner}"
        return path

    @classmethod
    def request(cls, caller, method, path, body=None, kind="application/json"):
        if caller.connection is None:
            caller.connection = http.client.HTTPSConnection(cls.host, int(cls.port),
                                                            context=cls.tls, timeout=30)
        headers = {"Idempotency-Key": str(uuid.uuid4()), "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = kind
        if caller.token:
            headers["Authorization"] = "Bearer " + caller.token
        caller.connection.request(method, path, body, headers)
        answer = caller.connection.getresponse()
        return answer.status, answer.read().decode(errors="replace"), dict(answer.headers)

    def body_of(self, route, caller, ident, owner):
        """A body that this route accepts from this caller."""
        type(self).serial += 1
        fresh = f"fresh-{self.serial}"
        data = self.content.get(ident, os.urandom(8))
        secret = {key: os.urandom(n).hex() for key, n in
                  (("curve_key", 32), ("sign_key", 32), ("machine", 32), ("proof", 64))}
        bodies = {
            "JobFile": NOWHERE,
            "Reason": {"reason": "a test"},
            "JoinTokenNew": {"provider": caller.provider or "p-quartz"},
            "Enrolment": {**secret, "claim": ""},
            "UploadNew": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)},
            "UploadCommit": {"size": len(data)},
            "DepositNew": {"project": "office", "amount": "1"},
            "ProjectNew": {"name": fresh},
            "UserNew": {"name": fresh, "role": "tenant"},
            "TokenNew": {"role": "auditor"},
        }
        if route.schema not in bodies:
            self.fail(f"{route}: say here what a valid {route.schema} is")
        body = dict(bodies[route.schema])
        fields = self.api["components"]["schemas"][route.schema].get("properties", {})
        if caller.role == "operator" and route.of and "project" in fields:
            body["project"] = owner
        return body

    def ask(self, route, caller, ident=None, owner=None, **fields):
        """Status and text of one request about one object."""
        path = self.fill(route, caller, ident, owner)
        if route.raw:
            return self.request(caller, route.method, path, self.content.get(ident, b"?"), "")[:2]
        body = None
        if route.schema:
            body = json.dumps({**self.body_of(route, caller, ident, owner), **fields})
        return self.request(caller, route.method, path, body)[:2]

    @staticmethod
    def problem(text, said):
        """A problem document without what differs by request: its number and what was asked for."""
        problem = json.loads(text)
        problem.pop("instance")
        return json.dumps(problem).replace(str(said), "…")

    def targets(self, route):
        return self.objects[route.of] if route.of else [(None, None)]

    # -- the rules ----------------------------------------------------------------------------

    def check_refused(self, route, caller, status, code, word=""):
        for ident, owner in self.targets(route):
            got, text = self.ask(route, caller, ident, owner)
            self.assertEqual((got, json.loads(text)["code"]), (status, code),
                             f"{caller.name}: {route}: {text}")
            self.assertIn(word, json.loads(text)["detail"])

    def check_reached(self, route, caller, ident, owner):
        if route.of == "uploads":
            ident = self.upload(caller, owner)  # a commit can be done once
        status, text = self.ask(route, caller, ident, owner)
        # 409: it is theirs, and its state says no (a job that has ended is not cancelled).
        self.assertIn(status, (*range(200, 300), 409), f"{caller.name}: {route} {ident}: {text}")
        if route.owner == "pool" or caller.party is None or caller.role == "operator":
            return
        for party in self.marks:
            foreign = party and (party in ("zebra", "yak", "office")) == bool(caller.project)
            if foreign and party != caller.party:
                for mark in self.marks[party]:
                    self.assertNotIn(mark, text, f"{caller.name}: {route} tells of {party}")

    def check_hidden(self, route, caller, ident, owner):
        random = os.urandom(32).hex() if ident in self.content else str(uuid.uuid4())
        there, nowhere = (self.ask(route, caller, x, owner) for x in (ident, random))
        self.assertEqual(there[0], 404, f"{caller.name}: {route} of {owner}: {there}")
        self.assertEqual(there[0], nowhere[0], f"{route}: {nowhere}")
        self.assertEqual(self.problem(there[1], ident), self.problem(nowhere[1], random))

    def check_named(self, route, caller):
        """Naming another party in a body does not reach it either."""
        fields = self.api["components"]["schemas"].get(route.schema, {}).get("properties", {})
        for field, foreign in (("project", ("zebra", "yak")), ("provider", ("p-quartz", "p-onyx"))):
            if field not in fields or route.owner not in (field, "party"):
                continue
            for name in foreign:
                if name == getattr(caller, field):
                    continue
                there, nowhere = (self.ask(route, caller, None, None, **{field: x})
                                  for x in (name, "none-such"))
                self.assertEqual(there[0], 404, f"{caller.name}: {route} {field}={name}: {there}")
                self.assertEqual(self.problem(there[1], name), self.problem(nowhere[1], "none-such"))

    def walk(self, caller):
        reached = 0
        for route in self.routes:
            if route.scope == "public":
                self.check_reached(route, caller, None, None)
            elif route.scope == "join secret":
                status, text = self.ask(route, caller)
                self.assertIn(status, range(400, 500), f"{route}: {text}")
            elif caller.token is None:
                self.check_refused(route, caller, 401, "auth-required")
            elif caller.name == "revoked":
                self.check_refused(route, caller, 401, "token-invalid")
            elif route.scope != "any token" and route.scope not in caller.scopes:
                self.check_refused(route, caller, 403, "scope-missing", route.scope)
            elif not caller.name.startswith("without "):
                for ident, owner in self.targets(route):
                    if route.of is None or route.reaches(caller, owner):
                        self.check_reached(route, caller, ident, owner)
                        reached += 1
                    else:
                        self.check_hidden(route, caller, ident, owner)
                if route.of is None and caller.role != "operator":
                    self.check_named(route, caller)
        return reached

    # -- tests --------------------------------------------------------------------------------

    def test_1_who_may_nothing_or_only_look_changes_nothing(self):
        before = self.pool.sql(STATE)
        scopes = {route.scope for route in self.routes} - {"public", "any token", "join secret"}
        self.assertEqual({n for n in self.callers if n.startswith("without ")},
                         {"without " + scope for scope in scopes})
        for name, caller in self.callers.items():
            if name in ("nobody", "revoked", "auditor") or name.startswith("without "):
                self.walk(caller)
        self.assertEqual(self.pool.sql(STATE), before)

    def test_2_parties_reach_their_own_and_nothing_else(self):
        for name in ("zebra", "yak", "quartz", "onyx"):
            with self.subTest(name):
                self.assertGreater(self.walk(self.callers[name]), 10)

    def test_3_operators_reach_all(self):
        before = self.pool.sql(STATE)
        self.assertGreater(self.walk(self.callers["operator"]), 40)
        self.assertNotEqual(self.pool.sql(STATE), before)


if __name__ == "__main__":
    unittest.main(verbosity=2)
