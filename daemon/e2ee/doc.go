// Package e2ee encrypts and decrypts the frames and messages of a session, as pure functions of bytes.
//
// # What it promises
//
// A [Sender] returns either a frame in LiveKit's end-to-end encryption format, sealed under a key that was installed
// for exactly this, or an error: never its input, never a part of it. A [Receiver] returns either bytes that the member
// whose [Ring] it belongs to sealed, once, under a key that is current, or an error. Whoever carries the frames (the
// hub, the SFU, the network) can drop, delay and count them; it can not read, change, add or repeat them.
//
// The process that captures and encodes counts as hostile. It has no key, but LiveKit's format leaves the beginning of
// each frame clear, and a program that may choose those bytes can speak to the SFU in them. So the clear part is
// written here, from fields that were parsed and checked:
//
//   - VP8 (RFC 6386 section 9.1): version 0, shown frames, the sizes announced by the daemon, no scaling.
//   - H.264: NAL unit types 7, 8, 5 and 1 only; parameter sets written anew from validated fields and pinned for as long
//     as the encoder runs; the two clear bytes of the slice follow from the frame's place in the stream.
//   - Opus (RFC 6716 section 3.1): one TOC byte and one length, both configured.
//
// What remains to such a process: VP8's first partition size, which is any number up to the frame's length (13 bits in a
// frame of 10 kB) and which the decoder needs as it is; which frame is a key frame, and of which announced size; how long
// each picture is, and when frames come.
//
// # The format
//
//	clear part | ciphertext | tag (16) | IV (12) | 0x0C | key index
//
// AES-128-GCM, the clear part is the associated data (livekit-client: src/e2ee/worker/FrameCryptor.ts). The clear part
// is 10 bytes of a VP8 key frame, 3 of another VP8 frame, 1 of Opus, and for H.264 all that precedes the first slice
// and that slice's first two bytes; what follows it in H.264 is escaped as in ITU-T H.264 section 7.4.1. The key index
// is the key's generation modulo 16. It is not authenticated: only destroying a key ends what can be played under it.
//
// Keys come out of Tink: PRF-based derivation (HKDF-SHA-256) from a member's 32 byte secret of one generation, with the
// salt and info that livekit-client uses for a raw key. Messages use a key of their own from the same secret ([DataSealer]).
//
// # What it does not protect
//
// LiveKit's keys are symmetric: every member holds the key of each other member. In a session of three or more, a member
// who also controls the server could imitate another member; with two, the own key is never accepted for receiving, so
// nobody can. Sizes and times of frames are visible. Key bytes are forgotten, not overwritten: Go's memory is not
// ours to clear; the daemon forbids core files and other processes' looks into it, which root can undo.
//
// The package imports no network, clock or operating system: whoever needs time passes it in as a number. Counting and
// logging are the caller's; [Reason] names every refusal in a word fit for a metric label.
package e2ee
