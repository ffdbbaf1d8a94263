package document

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// Envelope is a DSSE envelope (secure-systems-lab/dsse, envelope.md). Binary
// values are unpadded base64url, like all binary values of the project.
type Envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     Bytes       `json:"payload"`
	Signatures  []Signature `json:"signatures"`
}

// Signature is one signature over the envelope's pre-authentication encoding.
type Signature struct {
	KeyID Hash  `json:"keyid"`
	Sig   Bytes `json:"sig"`
}

// maxSignatures bounds the work that an unverified envelope can cause.
const maxSignatures = 16

// PAE is DSSE's pre-authentication encoding (protocol.md): the bytes that are
// signed. It binds the payload's type, so that a document of one type can never
// be taken for one of another.
func PAE(payloadType string, payload []byte) []byte {
	b := []byte("DSSEv1 " + strconv.Itoa(len(payloadType)) + " " + payloadType + " " + strconv.Itoa(len(payload)) + " ")
	return append(b, payload...)
}

// PayloadHash is SHA-256 of the payload. The hash of a clinic's first owner root
// is the clinic's name.
func (e *Envelope) PayloadHash() Hash { return SPKIHash(e.Payload) }

// ParseEnvelope reads an envelope and verifies nothing.
func ParseEnvelope(data []byte) (*Envelope, error) {
	var e Envelope
	if err := Decode(data, &e); err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	if len(e.Payload) == 0 {
		return nil, fmt.Errorf("envelope: %w: no payload", ErrInvalid)
	}
	return &e, nil
}

// Sign makes an envelope of a document. The payload is the document's JSON; it
// is never encoded again, verifiers read these bytes.
func Sign(d Document, keys ...*PrivateKey) (*Envelope, error) {
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("sign %s: %w", d.Type(), err)
	}
	payload, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", d.Type(), err)
	}
	e := &Envelope{PayloadType: d.Type().PayloadType(), Payload: payload, Signatures: []Signature{}}
	return e, e.Sign(keys...)
}

// Sign adds signatures, for owners who do not sit at the same desk. A key that
// has signed already is refused.
func (e *Envelope) Sign(keys ...*PrivateKey) error {
	for _, k := range keys {
		id := k.public.ID()
		for _, s := range e.Signatures {
			if s.KeyID == id {
				return fmt.Errorf("sign: %w: key %.16s has signed already", ErrDuplicateKey, id)
			}
		}
		sig, err := k.signer.Sign(PAE(e.PayloadType, e.Payload))
		if err != nil {
			return fmt.Errorf("sign: %w", err)
		}
		e.Signatures = append(e.Signatures, Signature{KeyID: id, Sig: sig})
	}
	return nil
}

// checkEach verifies every signature with the key it names. One that is bad, or
// made by a key that is not among those given, refuses the envelope: an honest
// envelope has none, so none is excused.
func (e *Envelope) checkEach(known func(Hash) (PublicKey, error)) error {
	if len(e.Signatures) == 0 || len(e.Signatures) > maxSignatures {
		return fmt.Errorf("%w: %d signatures, 1 to %d are possible", ErrThreshold, len(e.Signatures), maxSignatures)
	}
	seen := make(map[Hash]bool)
	for _, s := range e.Signatures {
		if seen[s.KeyID] {
			return fmt.Errorf("%w: key %.16s", ErrDuplicateKey, s.KeyID)
		}
		seen[s.KeyID] = true
		k, err := known(s.KeyID)
		if err != nil {
			return err
		}
		v, err := k.verifier()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if err := v.Verify(s.Sig, PAE(e.PayloadType, e.Payload)); err != nil {
			return fmt.Errorf("%w: key %.16s", ErrSignature, s.KeyID)
		}
	}
	return nil
}

// countFor is how many distinct keys of the role have signed. checkEach ran
// before: ids are hashes of keys, and no id stands there twice.
func (e *Envelope) countFor(r Role) int {
	n := 0
	for _, s := range e.Signatures {
		if _, ok := r.key(s.KeyID); ok {
			n++
		}
	}
	return n
}

// Why a document was refused: one error per attack, for errors.Is.
var (
	ErrInvalid      = errors.New("document is not well-formed")
	ErrPayloadType  = errors.New("document is of another type")
	ErrSignature    = errors.New("signature does not match the document")
	ErrUnknownKey   = errors.New("signed by a key that the owner root does not list")
	ErrWrongRole    = errors.New("signed by an owner key of another role")
	ErrDuplicateKey = errors.New("one key appears twice")
	ErrThreshold    = errors.New("too few signatures")
	ErrOtherClinic  = errors.New("document of another clinic")
	ErrRootVersion  = errors.New("document refers to an owner root that is not known here")
	ErrReplay       = errors.New("document is older than the one in force")
	ErrConflict     = errors.New("another document with the same serial is in force")
	ErrExpired      = errors.New("document has expired")
	ErrNotYet       = errors.New("document is dated in the future")
	ErrTarget       = errors.New("document is for another device")
	ErrBroken       = errors.New("chain of owner roots is broken")
)
