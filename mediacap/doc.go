// Package mediacap is the contract between the capture process and the daemon: encoded access units with
// the time of their capture, levels, status, requests, and the versioned wire that carries them over a
// connected stream socket.
//
// The two parties are alcove-capture, which holds the devices and runs C code on what they deliver, and
// alcoved, which holds keys and the network. The daemon counts the capture process as hostile: a Reader
// refuses everything that an honest Writer cannot have sent, reports what is missing, copies every byte
// before it looks at it, and never allocates more than MaxMessage for what a peer announces. It does not
// look inside a payload: what the bytes of a frame may say in the clear is checked where they are
// encrypted (daemon/e2ee). No key, descriptor or network address ever passes through this wire.
//
// # Byte layout, version 1
//
// Integers are big-endian. Every message is a header of 8 bytes and a body:
//
//	0  u8[2]  'A' 'C'
//	2  u8     version, 1
//	3  u8     type
//	4  u32    length of the body, at most MaxMessage
//
// Capture process to daemon. Hello comes first and once; units follow a Status that says running:
//
//	type 1, hello     u8 flags (1 synthetic), str build
//	type 2, status    u8 state, str reason,
//	                  u8 video codec, u16 width, u16 height, u32 frame interval in ns, str device, str encoder,
//	                  u8 audio codec, u32 sample rate in Hz, u8 channels, str device, str encoder
//	type 3, unit      u8 codec, u8 flags (1 key frame, 2 synthetic), u16 width, u16 height, u16 zero,
//	                  u32 sequence, u32 duration in ns, u64 capture time in ns, then the payload
//	type 4, level     u64 capture time in ns, i16 RMS, i16 peak, both in hundredths of dBFS
//
// Daemon to capture process:
//
//	type 128, key frame   empty
//	type 129, rate        u32 video bit/s, u32 audio bit/s; 0 leaves a rate as it is
//	type 130, stop        empty
//
// A str is u8 length (at most MaxText) and that many bytes of printable UTF-8.
//
// Capture times are CLOCK_MONOTONIC, which both processes of one machine share; picture and sound are
// on the same clock, so their difference is the true one. Sequence numbers count per medium what the
// encoder made, so a unit that was dropped on the way shows as a gap; after a gap, and after a change of
// size, the next picture is a key frame.
package mediacap
