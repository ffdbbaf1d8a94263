package agreement

import (
	"encoding/base64"
	"encoding/hex"
)

// Millis is a reading of the caller's monotonic clock in milliseconds. Only differences count; it never goes back.
type Millis int64

// D is the hash of an endpoint's document: the endpoint's name in every message.
type D [32]byte

// EID is the endpoint's LiveKit identity: unpadded base64url of the first 16 bytes.
func (d D) EID() string { return base64.RawURLEncoding.EncodeToString(d[:16]) }

// String is the hash in lower-case hex, the form in the relay's JSON.
func (d D) String() string { return hex.EncodeToString(d[:]) }

// T is the hash of a transcript.
type T [32]byte

// String is the hash in lower-case hex.
func (t T) String() string { return hex.EncodeToString(t[:]) }

// Secret is the 32 bytes that a member's frame and data keys are derived from. It redacts itself when printed.
type Secret [32]byte

// String hides the value.
func (Secret) String() string { return "[secret]" }

// GoString hides the value.
func (Secret) GoString() string { return "[secret]" }

// Role is what a document says its endpoint is.
type Role uint8

// The roles, as they stand in documents.
const (
	RoleDevice    Role = 1
	RoleTherapist Role = 2
	RolePatient   Role = 3
	RoleGuest     Role = 4
)

// String is the role's name in the relay's JSON.
func (r Role) String() string {
	switch r {
	case RoleDevice:
		return "device"
	case RoleTherapist:
		return "therapist"
	case RolePatient:
		return "patient"
	case RoleGuest:
		return "guest"
	}
	return "unknown"
}

func (r Role) valid() bool { return r >= RoleDevice && r <= RoleGuest }

// Levels of a proof.
const (
	LevelNone   uint8 = 0 // not verified by this end
	LevelServer uint8 = 1 // the server's word
	LevelOIDC   uint8 = 2 // the clinic's identity provider, verified by the room
	LevelClinic uint8 = 3 // a key in the clinic's signed roster or people list
)

// Kind of a proof.
type Kind uint8

// The kinds of proof.
const (
	KindDevice  Kind = 1
	KindPasskey Kind = 2
	KindOIDC    Kind = 3
	KindHub     Kind = 4
)

// Proof says who stands behind a document.
type Proof struct {
	Kind  Kind
	Level uint8
	Body  []byte
}

// Document is the parsed endpoint document.
type Document struct {
	Clinic  [32]byte
	SID     [16]byte
	Salt    [32]byte
	Role    Role
	KEMPub  []byte // encoded X-Wing key, 1,216 bytes
	SigPub  [32]byte
	Display string
}

// ProofRequest is what this end has to prove. Challenge is S's newest unexpired one for this document, nil if there is none.
type ProofRequest struct {
	D         D
	K         [32]byte
	Challenge *[32]byte
}

// Claim is somebody's proof, to be verified. Challenge is set only at S: the one it issued for D, unexpired, used up by
// this claim. Must is the level that the verifier has to reach itself; below it the round fails.
type Claim struct {
	Document  Document
	D         D
	K         [32]byte
	Proof     Proof
	Challenge *[32]byte
	Must      uint8
}

// GuestPolicy decides how a patient agrees to a guest whom a therapist admits.
type GuestPolicy uint8

// The guest policies.
const (
	GuestAgree    GuestPolicy = iota // only after the patient's yes
	GuestAnnounce                    // 15 s after the announcement unless the patient says no
)

// Config is one endpoint's place in one session. Role device makes it S.
type Config struct {
	Role   Role
	Clinic [32]byte
	SID    [16]byte
	Name   string // displayed to the others, see the package comment for what is allowed

	// Prove makes this end's proof. It is called once per round, on the caller's goroutine.
	Prove func(ProofRequest) (Proof, error)
	// Verify returns the level that this end could establish by itself, or an error for a proof that is wrong. It is
	// called only for well-formed proofs whose kind and level fit each other and the document's role. [Proofs.Verify] is one.
	Verify func(Claim) (level uint8, err error)
	// MinLevel is the clinic's minimum per role; roles that are absent have device 3, therapist 2, patient 1, guest 1.
	MinLevel map[Role]uint8
	// Guests matters at S only.
	Guests GuestPolicy
}

// MaxMembers counts everybody, S included. MaxMessage is in bytes.
const (
	MaxMembers = 5
	MaxMessage = 64 << 10
)

// Reason is why something stopped. The set is closed; words for people are elsewhere. Its number travels in end.
type Reason uint8

// Ordinary ends and refusals.
const (
	ReasonNone     Reason = 0
	ReasonEnded    Reason = 1 // the room ended the session
	ReasonLeft     Reason = 2 // this end, or the member, left
	ReasonRemoved  Reason = 3 // taken out by the room or a therapist
	ReasonSilent   Reason = 4 // did not answer in a round
	ReasonGone     Reason = 5 // no connection for 60 s
	ReasonDeclined Reason = 6 // the patient said no to the guest
)

// Why nothing may be sent at the moment.
const (
	ReasonNoEpoch  Reason = 16 // no T in force
	ReasonChanging Reason = 17 // somebody is being removed
	ReasonNobody   Reason = 18 // no other member is ready
	ReasonNoAlive  Reason = 19 // no fresh alive from the room
)

// Failures: somebody sent a wrong value. The session is over at this end.
const (
	ReasonSignature  Reason = 32 // a signature does not fit
	ReasonProposal   Reason = 33 // a signed proposal that cannot be
	ReasonTranscript Reason = 34 // another transcript than ours
	ReasonAdmit      Reason = 35 // somebody without a valid admit
	ReasonCommit     Reason = 36 // two commits, or a commit that the nonce does not open
	ReasonCommitSet  Reason = 37 // the others saw other commits
	ReasonDocument   Reason = 38 // a document of another session, or that cannot be read
	ReasonDuplicate  Reason = 39 // two members with the same key
	ReasonRole       Reason = 40 // role, admit and proof do not fit
	ReasonProof      Reason = 41 // a proof that does not hold
	ReasonLevel      Reason = 42 // a proof below the clinic's minimum
	ReasonKeys       Reason = 43 // a key message with a wrong value
	ReasonGuesses    Reason = 44 // three failed rounds within ten minutes
	ReasonDifferent  Reason = 45 // people compared, and it was different
	ReasonInternal   Reason = 46 // this end could not sign, prove or draw random bytes
)

var reasonNames = map[Reason]string{
	ReasonNone: "none", ReasonEnded: "ended", ReasonLeft: "left", ReasonRemoved: "removed", ReasonSilent: "silent",
	ReasonGone: "gone", ReasonDeclined: "declined",
	ReasonNoEpoch: "no_epoch", ReasonChanging: "changing", ReasonNobody: "nobody", ReasonNoAlive: "no_alive",
	ReasonSignature: "signature", ReasonProposal: "proposal", ReasonTranscript: "transcript", ReasonAdmit: "admit",
	ReasonCommit: "commit", ReasonCommitSet: "commit_set", ReasonDocument: "document", ReasonDuplicate: "duplicate",
	ReasonRole: "role", ReasonProof: "proof", ReasonLevel: "level", ReasonKeys: "keys", ReasonGuesses: "guesses",
	ReasonDifferent: "different", ReasonInternal: "internal",
}

// String is the code's stable name.
func (r Reason) String() string {
	if s, ok := reasonNames[r]; ok {
		return s
	}
	return "unknown"
}

// Failure tells whether r means that somebody sent a wrong value.
func (r Reason) Failure() bool { return r >= ReasonSignature && r <= ReasonInternal }

// Member is one endpoint of the epoch in force, as its document says.
type Member struct {
	D          D
	EID        string
	Role       Role
	Name       string
	Level      uint8 // in the transcript, verified by S
	Verified   uint8 // what this end verified itself
	Self       bool
	Compared   bool // D is in this end's V
	ComparedBy D    // the therapist whose word it is; zero when compared on this end
}

// Effect is something that the caller has to do, in the order given.
type Effect interface{ effect() }

type (
	// Send hands a message to the relay.
	Send struct{ Message []byte }

	// Sending says whether anything may be sent to the others now. It is false until it is said to be true; when it
	// becomes false, frames are dropped from that moment on. Reason says why not.
	Sending struct {
		Allowed bool
		Reason  Reason
	}

	// SendKey makes this the key that frames and data are sealed with, now, in place of any former one.
	SendKey struct {
		T      T
		Gen    uint32
		Index  uint8
		Secret Secret
	}

	// DropSendKey destroys the key in use: nothing replaces it yet.
	DropSendKey struct{}

	// RecvKey adds a key that D may send under.
	RecvKey struct {
		D      D
		EID    string
		T      T
		Gen    uint32
		Index  uint8
		Secret Secret
	}

	// RetireRecv destroys a receive key (a browser overwrites the slot with random bytes).
	RetireRecv struct {
		D     D
		EID   string
		Gen   uint32
		Index uint8
	}

	// Epoch says that a new T is in force. Members are in order of D, this end included. Check tells that the round was
	// asked for by a therapist, to compare.
	Epoch struct {
		Number   uint32
		T        T
		Members  []Member
		Code     string
		Pictures [4]int
		Digits   string
		Check    bool
	}

	// KeyFrame says that D has just become able to read what this end sends: encode a key frame now.
	KeyFrame struct{ D D }

	// Compared says that D is in this end's V now. By is the therapist whose word it is, zero for this end's own.
	Compared struct{ D, By D }

	// AskGuest (patient's end, and S for the person in the room): a therapist wants to let this guest in. Answer with
	// [Endpoint.AgreeGuest].
	AskGuest struct{ D D }

	// Dropped (S only): D is no member and is not waited for any more; its token ends.
	Dropped struct {
		D      D
		Reason Reason
	}

	// RoundFailed is for the audit log: the number of failed rounds in the last 10 minutes, this one included.
	RoundFailed struct {
		Number uint32
		Count  int
	}

	// Ended: this end is out of the session, in order. All keys are to be forgotten; the endpoint does nothing more.
	Ended struct{ Reason Reason }

	// Failed: as Ended, but something was wrong. From is who sent it, zero if that cannot be told.
	Failed struct {
		Reason Reason
		From   D
	}
)

func (Send) effect()        {}
func (Sending) effect()     {}
func (SendKey) effect()     {}
func (DropSendKey) effect() {}
func (RecvKey) effect()     {}
func (RetireRecv) effect()  {}
func (Epoch) effect()       {}
func (KeyFrame) effect()    {}
func (Compared) effect()    {}
func (AskGuest) effect()    {}
func (Dropped) effect()     {}
func (RoundFailed) effect() {}
func (Ended) effect()       {}
func (Failed) effect()      {}
