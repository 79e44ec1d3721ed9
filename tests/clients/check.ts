// Every answer of the gateway against the description that the gateway itself serves.
import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";
import formats from "ajv-formats";

type Json = Record<string, any>;

const METHODS = ["get", "put", "post", "delete", "patch", "head"];

export interface Operation {
  id: string;
  method: string;
  path: string;
  open: boolean; // answers without a credential
  body: boolean; // cannot be called without one
}

export class Description {
  readonly answered = new Set<string>(); // operationIds with a good answer
  readonly refused = new Set<string>(); // operationIds with a problem
  answers = 0;
  private readonly ajv: Ajv2020;
  private readonly compiled = new Map<string, ValidateFunction>();

  constructor(private readonly doc: Json) {
    this.ajv = new Ajv2020({ strict: true, strictTypes: false, allErrors: true });
    (formats as unknown as (ajv: Ajv2020) => void)(this.ajv);
    this.ajv.addVocabulary(["components", "example"]);
    // A field that the description does not know is a difference like one that is missing.
    const schemas: Json = structuredClone(doc.components.schemas);
    for (const schema of Object.values(schemas))
      if (schema.properties && schema.additionalProperties === undefined)
        schema.additionalProperties = false;
    this.ajv.addSchema({ $id: "sheaf", components: { schemas } });
  }

  operations(): Operation[] {
    const found: Operation[] = [];
    for (const [path, item] of Object.entries<Json>(this.doc.paths))
      for (const method of METHODS.filter((name) => item[name]))
        found.push({
          id: item[method].operationId,
          method,
          path,
          open: item[method].security?.length === 0,
          body: item[method].requestBody?.required === true,
        });
    return found;
  }

  /** Throws with the operation's name when the answer is not as described. */
  async check(method: string, path: string, response: Response): Promise<void> {
    const operation = this.doc.paths[path]?.[method.toLowerCase()];
    if (!operation) throw new Error(`${method} ${path} is not described`);
    const what = `${operation.operationId}: ${response.status}`;
    const text = await response.clone().text();
    const exact = operation.responses[response.status];
    const answer = this.deref(exact ?? operation.responses.default);
    if (response.ok && !exact) throw new Error(`${what} is not described: ${text.slice(0, 300)}`);
    const type = (response.headers.get("Content-Type") ?? "").split(";")[0]!.trim();
    this.answers++;
    (response.ok ? this.answered : this.refused).add(operation.operationId);
    if (!answer.content) {
      if (text !== "") throw new Error(`${what} has a body that is not described`);
      return;
    }
    const media = answer.content[type];
    if (!media) throw new Error(`${what} is '${type}', not ${Object.keys(answer.content)}`);
    if (!/json$/.test(type)) return;
    const value: any = JSON.parse(text);
    const validate = this.validator(media.schema);
    const valid: boolean = validate(value);
    if (!valid)
      throw new Error(`${what}: ${this.ajv.errorsText(validate.errors)}\n${text.slice(0, 2000)}`);
    if (!response.ok && value.status !== response.status)
      throw new Error(`${what}: the problem says ${value.status}`);
  }

  /** A value that is no answer of its own, against a schema by its name. */
  checkValue(name: string, value: any): void {
    const validate = this.validator({ $ref: `#/components/schemas/${name}` });
    const valid: boolean = validate(value);
    if (!valid)
      throw new Error(`${name}: ${this.ajv.errorsText(validate.errors)}: ${JSON.stringify(value)}`);
  }

  private deref(value: Json): Json {
    if (!value?.$ref) return value;
    return value.$ref.split("/").slice(1).reduce((at: Json, key: string) => at[key], this.doc);
  }

  private validator(schema: Json): ValidateFunction {
    const key = JSON.stringify(schema);
    let validate = this.compiled.get(key);
    if (!validate) {
      validate = this.ajv.compile(JSON.parse(key.replaceAll('"#/', '"sheaf#/')));
      this.compiled.set(key, validate);
    }
    return validate;
  }
}
