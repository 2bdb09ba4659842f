// Decisions wait here until the server has stored them. IndexedDB survives reload, crash and a day
// without server; it holds decisions, notes and ids, never content.

const NAME = "perimeter-outbox";

function asPromise(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

export class Outbox {
  // Entries of other people on a shared computer stay untouched until they log in again.
  static async open(personId) {
    const outbox = new Outbox();
    outbox.personId = personId;
    outbox.memory = [];
    outbox.nextNumber = Date.now() * 1000;
    try {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => request.result.createObjectStore("entries", { keyPath: "number" });
      outbox.database = await asPromise(request);
      const all = await asPromise(outbox.#store("readonly").getAll());
      outbox.memory = all.filter((entry) => entry.personId === personId);
      // A computer whose clock was set back still adds at the end.
      outbox.nextNumber = all.reduce((last, entry) => Math.max(last, entry.number), outbox.nextNumber);
    } catch (error) {
      console.warn("decisions are kept in memory only", error);
    }
    return outbox;
  }

  #store(mode) {
    return this.database.transaction("entries", mode, { durability: "strict" }).objectStore("entries");
  }

  // Adds an entry in memory at once; the returned promise resolves when it is on disk.
  async add(path, body) {
    this.nextNumber += 1;
    const entry = { number: this.nextNumber, personId: this.personId, path, body };
    this.memory.push(entry);
    if (this.database) await asPromise(this.#store("readwrite").put(entry));
    return entry;
  }

  async remove(entries) {
    const gone = new Set(entries.map((entry) => entry.number));
    this.memory = this.memory.filter((entry) => !gone.has(entry.number));
    if (!this.database) return;
    const store = this.#store("readwrite");
    await Promise.all([...gone].map((number) => asPromise(store.delete(number))));
  }

  find(token) {
    return this.memory.find((entry) => entry.body.client_token === token);
  }

  // The longest run of equal requests at the front, so that order is kept.
  front(count) {
    const path = this.memory.length ? this.memory[0].path : "";
    const end = this.memory.findIndex((entry) => entry.path !== path);
    return this.memory.slice(0, Math.min(count, end < 0 ? this.memory.length : end));
  }

  get size() {
    return this.memory.length;
  }
}
