// Package liar is a hub that lies: it stands between the real hub, a room and the built call page, holds the hub's
// TLS key as the hub does, and passes on what it likes. Its lies are the tests' proof of what the key agreement
// promises against hub, SFU and network (daemon/e2ee/agreement).
//
//	room ══ TLS, pinned ══> liar ──> hub <── liar <══ WebSocket ══ page
//	                          └── foreign endpoints, with keys of their own ──┘
//
// A [Lie] says what it does to which message of which leg, and draws what varies for each [Run]. A run is one
// session: its own appointment, invitation, page load and document. Nothing in room or page knows that it is tested;
// time is the room's [Clock] and, in the page, the browser's clock replaced from outside (page.js), which both flow
// and can be made to leap, so that ten seconds of silence cost nothing.
//
// What counts as having arrived: for the page, the digest of the bytes that its WebSocket delivered; for the room,
// the answer to a WebSocket ping that was sent behind the bytes (RFC 6455 section 5.5.3: the room's reader answers
// when it has read all that came before). What is withheld counts when its sender's bytes are here and their digest
// is not among those delivered.
package liar
