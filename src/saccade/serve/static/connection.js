// The WebSocket to the server: opens, comes back by itself, and says how it stands.

const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 4000;
const BUSY_WAIT_MS = 3000;

export class Connection {
  /** take: gets every message. changed: gets "open", "lost" or "busy". */
  constructor(take, changed) {
    this.take = take;
    this.changed = changed;
    this.waitMs = FIRST_WAIT_MS;
    this.open();
  }

  open() {
    // Beside the page, whatever name and path a proxy gives it.
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
      this.changed(this.busy ? "busy" : "lost");
      if (!wasOpen) dispatchEvent(new Event("refused")); // perhaps; a WebSocket does not tell
      setTimeout(() => this.open(), this.busy ? BUSY_WAIT_MS : this.waitMs);
      this.busy = false;
      this.waitMs = Math.min(LONGEST_WAIT_MS, this.waitMs * 2);
    };
    this.socket = socket;
  }

  get isOpen() {
    return this.socket.readyState === WebSocket.OPEN;
  }

  send(type, fields = {}) {
    if (this.isOpen) this.socket.send(JSON.stringify({ type, ...fields }));
  }

  /** Send bytes unless earlier ones still wait; return whether they went. */
  sendBytes(bytes) {
    if (!this.isOpen || this.socket.bufferedAmount > 0) return false;
    this.socket.send(bytes);
    return true;
  }
}
