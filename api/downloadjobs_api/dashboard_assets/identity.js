// Who the page acts for, where the ingress does not say so: kept for this tab's session only.

const KEY = "downloadjobs.identity";
const FORMS = {
  header: { label: "User id", pattern: /^[\x21-\x2b\x2d-\x7e]{1,128}$/, hint: "1 to 128 visible ASCII characters, without spaces and commas." },
  jwt: { label: "Bearer token", pattern: /^[A-Za-z0-9._~+/-]+=*$/, hint: "A token of your identity provider: three parts, with dots between." },
};

export class Identity {
  #mode;
  #storage;
  #value;

  constructor(mode, storage) {
    this.#mode = mode;
    this.#storage = storage;
    this.#value = this.form ? (storage?.getItem(KEY) ?? "") : "";
    if (this.#value && !this.form.pattern.test(this.#value)) this.clear();
  }

  // How to ask for it, or undefined where there is nothing to ask.
  get form() {
    return FORMS[this.#mode];
  }

  get secret() {
    return this.#mode === "jwt";
  }

  get known() {
    return this.#value !== "";
  }

  // What may be shown of it.
  get shown() {
    return this.secret ? (subject(this.#value) ?? "signed in") : this.#value;
  }

  headers() {
    if (!this.#value) return {};
    return this.secret ? { authorization: `Bearer ${this.#value}` } : { "x-user-id": this.#value };
  }

  // False for what no request could carry.
  set(value) {
    const trimmed = value.trim().replace(this.secret ? /^Bearer\s+/i : "", "");
    if (!this.form?.pattern.test(trimmed)) return false;
    this.#value = trimmed;
    this.#storage?.setItem(KEY, trimmed);
    return true;
  }

  clear() {
    this.#value = "";
    this.#storage?.removeItem(KEY);
  }
}

// A token's subject, unchecked and for showing only; the API checks it.
function subject(token) {
  try {
    const part = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(part), (char) => char.charCodeAt(0));
    const { sub } = JSON.parse(new TextDecoder().decode(bytes));
    return typeof sub === "string" && sub ? sub : undefined;
  } catch {
    return undefined;
  }
}
