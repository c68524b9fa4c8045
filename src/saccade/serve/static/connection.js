// The WebSocket to the server: opens, reconnects automatically, and reports its state.

const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 4000;
const BUSY_WAIT_MS = 3000;

export class Connection {
  /** take: called with every message. changed: called with "open", "lost", "busy" or "replaced". */
  constructor(take, changed) {
    this.take = take;
    this.changed = changed;
    this.waitMs = FIRST_WAIT_MS;
    this.open();
  }

  open() {
    // Relative to the page, since a proxy may change the name and the path.
    const address = new URL("api/stream", location.href);
    address.protocol = address.protocol.replace("http", "ws");
    let wasOpen = false;
    const socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      wasOpen = true;
      this.changed("open");
    };
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "busy") this.busy = true;
      if (message.type === "hello") this.waitMs = FIRST_WAIT_MS;
      this.take(message);
    };
    socket.onclose = () => {
      this.changed(this.busy ? "busy" : this.isReplaced ? "replaced" : "lost");
      if (!wasOpen) dispatchEvent(new Event("refused")); // perhaps refused: a WebSocket does not report the reason
      setTimeout(() => this.open(), this.busy ? BUSY_WAIT_MS : this.isReplaced ? 0 : this.waitMs);
      this.busy = this.isReplaced = false;
      this.waitMs = Math.min(LONGEST_WAIT_MS, this.waitMs * 2);
    };
    this.socket = socket;
  }

  /** The server is about to close the connection, and is there for the next one. */
  reopenAtOnce() {
    this.isReplaced = true;
  }

  get isOpen() {
    return this.socket.readyState === WebSocket.OPEN;
  }

  send(type, fields = {}) {
    if (this.isOpen) this.socket.send(JSON.stringify({ type, ...fields }));
  }

  /** Send bytes unless earlier data is still queued; return whether they were sent. */
  sendBytes(bytes) {
    if (!this.isOpen || this.socket.bufferedAmount > 0) return false;
    this.socket.send(bytes);
    return true;
  }
}
