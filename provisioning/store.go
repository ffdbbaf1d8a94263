package provisioning

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/alcove-room/alcove/daemon/durable"
	"github.com/alcove-room/alcove/provisioning/document"
)

// Store keeps the clinic's verified documents of this box. What it holds on disk is verified again when it
// is opened; the only thing believed from disk is which clinic this box belongs to.
type Store struct {
	path string
	spki []byte // this box's TLS key, by which the roster names it

	mu     sync.Mutex // guards all below
	saved  saved
	trust  *document.Trust
	roster *document.Roster
	people *document.People
	config *document.Config
}

// saved is the file: the clinic, where its hub is, the envelopes in force and their place in the order, which
// outlives an envelope that has expired.
type saved struct {
	Clinic     document.Hash                        `json:"clinic"`
	Hub        string                               `json:"hub"`
	ClaimID    string                               `json:"claim_id"`
	Nonce      document.Bytes                       `json:"nonce"`
	OwnerRoots []*document.Envelope                 `json:"owner_roots"`
	Envelopes  map[document.Type]*document.Envelope `json:"envelopes"`
	States     map[document.Type]document.State     `json:"states"`
}

// Documents is what is in force now. Roster, People and Config are nil when there is none or it has expired.
type Documents struct {
	Trust  *document.Trust
	Hub    string
	Claim  string // id of the claim that brought the box here
	Nonce  []byte // of this box's request to be enrolled with that claim
	Roster *document.Roster
	People *document.People
	Config *document.Config
	// Device is this box's entry in the roster; nil when the roster does not list it.
	Device *document.Device
}

// OpenStore opens the store in dir for the box whose TLS key is tlsSPKI; one out of its carton has an empty store.
func OpenStore(dir string, tlsSPKI []byte, now time.Time) (*Store, error) {
	s := &Store{path: filepath.Join(dir, "documents.json"), spki: tlsSPKI}
	s.saved.Envelopes = make(map[document.Type]*document.Envelope)
	s.saved.States = make(map[document.Type]document.State)
	raw, err := os.ReadFile(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open documents: %w", err)
	}
	if err := document.Decode(raw, &s.saved); err != nil {
		return nil, fmt.Errorf("documents in %s are damaged: %w; restore the state directory, or remove the file and enrol again", s.path, err)
	}
	if s.trust, err = verifyChain(s.saved.Clinic, s.saved.OwnerRoots, now); err != nil {
		return nil, fmt.Errorf("documents in %s: %w", s.path, err)
	}
	s.refreshLocked(now)
	return s, nil
}

// verifyChain verifies the clinic's owner roots. One that has expired puts nothing in force any more, but it still says
// where its successor comes from, so it is kept.
func verifyChain(clinic document.Hash, chain []*document.Envelope, now time.Time) (*document.Trust, error) {
	trust, err := document.VerifyOwnerRoot(clinic, chain, now)
	if !errors.Is(err, document.ErrExpired) {
		return trust, err
	}
	newest, err := document.Inspect(chain[len(chain)-1])
	if err != nil {
		return nil, err
	}
	root, ok := newest.(*document.OwnerRoot)
	if !ok {
		return nil, fmt.Errorf("owner root: %w", document.ErrPayloadType)
	}
	return document.VerifyOwnerRoot(clinic, chain, root.Issued)
}

// Adopt makes this box the clinic's that the claim names. A box that already belongs to another clinic refuses.
func (s *Store) Adopt(c *document.Claim, now time.Time) error {
	trust, err := c.Verify(now)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.saved.Clinic.IsZero() && s.saved.Clinic != trust.Clinic() {
		return fmt.Errorf("claim %s: %w: this box belongs to clinic %.16s; wipe it first", c.ClaimID, document.ErrOtherClinic, s.saved.Clinic)
	}
	nonce := make([]byte, document.JoinTokenSize)
	if _, err := rand.Read(nonce); err != nil {
		return fmt.Errorf("claim %s: %w", c.ClaimID, err)
	}
	next := s.saved
	next.Nonce = nonce
	next.Clinic, next.Hub, next.ClaimID = trust.Clinic(), c.Hub, c.ClaimID
	if s.trust != nil && s.trust.Root().Version >= trust.Root().Version {
		trust = s.trust // an old claim does not bring back an old owner root
	} else {
		next.OwnerRoots = c.OwnerRoots
	}
	if err := s.writeLocked(next); err != nil {
		return err
	}
	s.trust = trust
	return nil
}

// Have is what the hub need not send again.
func (s *Store) Have() map[document.Type]document.Order {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := make(map[document.Type]document.Order)
	for t, st := range s.saved.States {
		have[t] = st.In
	}
	if s.trust != nil {
		have[document.TypeOwnerRoot] = s.trust.Root().Order()
	}
	return have
}

// Current is what is in force at now.
func (s *Store) Current(now time.Time) Documents {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refreshLocked(now)
	d := Documents{Trust: s.trust, Hub: s.saved.Hub, Claim: s.saved.ClaimID, Nonce: s.saved.Nonce, Roster: s.roster, People: s.people, Config: s.config}
	if own, ok := s.deviceLocked(now); ok {
		d.Device = own
	}
	return d
}

// Apply verifies what the hub sent, in the order in which documents depend on each other, and keeps what
// holds. It reports whether anything changed; one bad document does not keep the others out.
func (s *Store) Apply(envelopes []*document.Envelope, now time.Time) (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trust == nil {
		return false, ErrNotEnrolled
	}
	next := s.saved
	next.Envelopes, next.States = clone(s.saved.Envelopes), clone(s.saved.States)
	trust, roster := s.trust, s.roster
	now = s.notBeforeLocked(now)
	var errs []error
	for _, t := range document.Types() {
		for _, e := range envelopes {
			if e == nil || e.PayloadType != t.PayloadType() {
				continue
			}
			if t == document.TypeOwnerRoot {
				newer, err := trust.Next(e, now)
				if err != nil {
					errs = append(errs, err)
				} else if newer != trust {
					trust, changed = newer, true
					next.OwnerRoots = append(append([]*document.Envelope(nil), next.OwnerRoots...), e)
				}
				continue
			}
			st := next.States[t]
			d, err := verify(t, e, trust, s.forUs(t, st, roster, now), now)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			if r, ok := d.(*document.Roster); ok {
				roster = r // the documents behind it may be for a device that it names
			}
			if after := st.After(e, d); after != st {
				next.Envelopes[t], next.States[t], changed = e, after, true
			}
		}
	}
	if changed {
		if err := s.writeLocked(next); err != nil {
			return false, errors.Join(append(errs, err)...)
		}
		s.trust = trust
		s.refreshLocked(now)
	}
	return changed, errors.Join(errs...)
}

func (s *Store) deviceLocked(now time.Time) (*document.Device, bool) {
	if s.roster == nil {
		return nil, false
	}
	return s.roster.ByTLS(s.spki, now)
}

// forUs is the state to judge a document with: one that is for another box is not ours, whether or not the roster names
// this one. The roster itself is for all.
func (s *Store) forUs(t document.Type, st document.State, roster *document.Roster, now time.Time) document.State {
	if t == document.TypeRoster {
		return st
	}
	st.Device = unlisted
	if roster != nil {
		if own, ok := roster.ByTLS(s.spki, now); ok {
			st.Device = own.ID
		}
	}
	return st
}

// unlisted is the id of a box that no roster names; no device can have it.
const unlisted = "(unlisted)"

func clone[K comparable, V any](m map[K]V) map[K]V {
	out := make(map[K]V, len(m)+1)
	for k, v := range m {
		out[k] = v
	}
	return out
}

// verify judges one envelope.
func verify(t document.Type, e *document.Envelope, trust *document.Trust, st document.State, now time.Time) (document.Document, error) {
	switch t {
	case document.TypeRoster:
		return document.Verify[document.Roster](e, trust, st, now)
	case document.TypePeople:
		return document.Verify[document.People](e, trust, st, now)
	case document.TypeConfig:
		return document.Verify[document.Config](e, trust, st, now)
	}
	return nil, document.ErrPayloadType
}

// refreshLocked reads the documents in force again: what has expired is gone.
func (s *Store) refreshLocked(now time.Time) {
	s.roster, s.people, s.config = nil, nil, nil
	if s.trust == nil {
		return
	}
	now = s.notBeforeLocked(now)
	if !now.Before(s.trust.Root().Expires) {
		return // under an owner root that has expired nothing is in force
	}
	for _, t := range []document.Type{document.TypeRoster, document.TypePeople, document.TypeConfig} {
		e := s.saved.Envelopes[t]
		if e == nil {
			continue
		}
		d, err := verify(t, e, s.trust, s.forUs(t, s.saved.States[t], s.roster, now), now)
		if err != nil {
			continue // run out, or superseded by the owner root: not in force
		}
		switch d := d.(type) {
		case *document.Roster:
			s.roster = d
		case *document.People:
			s.people = d
		case *document.Config:
			s.config = d
		}
	}
}

// notBeforeLocked is the time to judge by: a clock that went back does not bring back what has run out. No earlier than
// now can any document have been issued that was verified here.
func (s *Store) notBeforeLocked(now time.Time) time.Time {
	later := func(t time.Time) {
		if t.After(now) {
			now = t
		}
	}
	later(s.trust.Root().Issued)
	for _, e := range s.saved.Envelopes {
		d, err := document.Inspect(e)
		if err != nil {
			continue // Verify says what is wrong with it
		}
		switch d := d.(type) {
		case *document.Roster:
			later(d.Issued)
		case *document.People:
			later(d.Issued)
		case *document.Config:
			later(d.Issued)
		}
	}
	return now
}

func (s *Store) writeLocked(next saved) error {
	raw, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("keep documents: %w", err)
	}
	if err := durable.WriteFile(s.path, raw, 0o600); err != nil {
		return fmt.Errorf("keep documents: %w", err)
	}
	s.saved = next
	return nil
}
