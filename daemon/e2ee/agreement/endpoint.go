package agreement

// Driver is the whole of what an endpoint does for its caller; [*Endpoint] is the implementation. It stands here so that
// the other side of the line can be written against it. Not safe for concurrent use: one goroutine owns an endpoint.
//
// Every method that takes now returns what has to be done, in order; an error means that the call was out of place
// and nothing happened. After [Ended] or [Failed] every call returns nothing.
type Driver interface {
	D() D
	EID() string
	Document() []byte

	// Handle takes one message of the relay. What is not for this end, is junk or comes twice is dropped without effect.
	Handle(now Millis, msg []byte) []Effect
	// Tick lets time pass. Call it at NextDeadline or any time.
	Tick(now Millis) []Effect
	// NextDeadline is when Tick has something to do, false if nothing is waiting for time.
	NextDeadline() (Millis, bool)
	// Online tells that the connection to the relay is there or lost. A new endpoint is online.
	Online(now Millis, up bool) []Effect
	// Resend is this end's current messages, for after a reconnection or a resync. Repetitions do no harm.
	Resend() [][]byte

	// Gone, Back and Left are the hub's hints about somebody's relay connection (S only; ignored elsewhere).
	Gone(now Millis, d D) []Effect
	Back(now Millis, d D) []Effect
	Left(now Millis, d D) []Effect

	// Admit lets D in: at S by touch in the room, at a therapist's end by its signature.
	Admit(now Millis, d D, role Role) ([]Effect, error)
	// AdmitTherapist (S only) lets a signed-in therapist in without a touch, into a list of exactly two.
	AdmitTherapist(now Millis, d D) ([]Effect, error)
	// Challenge (S only) sends D a fresh challenge for its proof, valid for 120 s.
	Challenge(now Millis, d D) ([]Effect, error)
	// Remove takes D out, or withdraws its admission: at S or at a therapist's end.
	Remove(now Millis, d D) ([]Effect, error)
	// AgreeGuest answers AskGuest: at a patient's end by its signature, at S by touch.
	AgreeGuest(now Millis, d D, yes bool) ([]Effect, error)
	// Check asks for a fresh round to compare: at S, or at a therapist's end.
	Check(now Millis) ([]Effect, error)
	// MarkEqual says that people compared the code of t and that it was the same.
	MarkEqual(now Millis, t T) ([]Effect, error)
	// MarkDifferent says that it was not: the session fails on both sides.
	MarkDifferent(now Millis) []Effect
	// Rekey rotates this end's key under the same T (at 2^17 frames; the ten minutes are kept by Tick).
	Rekey(now Millis) ([]Effect, error)
	// Leave takes this end out. At S it is End.
	Leave(now Millis) []Effect
	// End (S only) ends the session for everybody.
	End(now Millis) []Effect
}
