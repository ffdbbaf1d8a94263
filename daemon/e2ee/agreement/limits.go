package agreement

// Times of the protocol; both ends of a line keep them.
const (
	silence       Millis = 10_000  // S waits this long for each step of a round
	roundLifetime Millis = 30_000  // a member forgets an unfinished round after this
	guessWindow   Millis = 600_000 // failed rounds are counted for this long
	challengeLife Millis = 120_000 // a challenge can be used for this long
	memberGone    Millis = 60_000  // a lost connection keeps membership for this long
	announceWait  Millis = 15_000  // from the announcement of a guest, policy announce
	aliveEvery    Millis = 5_000
	aliveLimit    Millis = 15_000
	rotateEvery   Millis = 600_000
	switchLimit   Millis = 2_000 // from own keys to the switch
	drain         Millis = 2_000 // from the switch to the end of the old receive keys
)

// Counts of the protocol.
const (
	maxFailed   = 3         // failed rounds within guessWindow
	maxSafeTime = 1<<53 - 1 // times and counters stay exact in a browser's numbers
)

// Our bounds on memory; an honest session stays far below.
const (
	maxHeld      = 64
	maxHeldBytes = 256 << 10
	maxSecrets   = 4096 // hashes of secrets remembered in one session
	maxRecvKeys  = 8    // live receive keys of one sender
	maxPending   = 64   // admissions that wait, at S
	maxRemoved   = 4096
)
