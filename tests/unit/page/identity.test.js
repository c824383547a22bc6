import assert from "node:assert/strict";
import { test } from "node:test";
import { Identity } from "./identity.js";

class Storage {
  values = new Map();
  getItem = (name) => this.values.get(name) ?? null;
  setItem = (name, value) => this.values.set(name, value);
  removeItem = (name) => this.values.delete(name);
}

const TOKEN = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhZGEifQ.c2ln";

test("without anything set nothing is sent", () => {
  for (const mode of ["header", "jwt", "anonymous"]) assert.deepEqual(new Identity(mode, new Storage()).headers(), {});
});

test("a user id is sent as it is, kept for the session, and forgotten", () => {
  const storage = new Storage();
  const identity = new Identity("header", storage);
  assert.equal(identity.set(" ada "), true);
  assert.deepEqual(new Identity("header", storage).headers(), { "x-user-id": "ada" });
  identity.clear();
  assert.equal(storage.values.size, 0);
  assert.equal(new Identity("header", storage).known, false);
});

test("what no header could carry is refused", () => {
  const identity = new Identity("header", new Storage());
  for (const value of ["", "two words", "a,b", "ü", "x".repeat(129), "a\nb"]) assert.equal(identity.set(value), false, value);
});

test("a token is sent as a bearer's, with or without that word", () => {
  for (const typed of [TOKEN, `Bearer ${TOKEN}`, `bearer  ${TOKEN}`]) {
    const identity = new Identity("jwt", new Storage());
    assert.equal(identity.set(typed), true);
    assert.deepEqual([identity.headers(), identity.shown], [{ authorization: `Bearer ${TOKEN}` }, "ada"]);
  }
});

test("of a token that cannot be read nothing is shown", () => {
  const identity = new Identity("jwt", new Storage());
  identity.set("opaque");
  assert.equal(identity.shown, "signed in");
});

test("what an earlier mode kept is not sent in another", () => {
  const storage = new Storage();
  new Identity("jwt", storage).set(TOKEN);
  assert.deepEqual(new Identity("anonymous", storage).headers(), {});
});

test("without a session storage it is known while the page is open", () => {
  const identity = new Identity("header", null);
  identity.set("ada");
  assert.deepEqual(identity.headers(), { "x-user-id": "ada" });
  identity.clear();
  assert.equal(identity.known, false);
});
