// Package fleet is the hub's store-and-forward of the clinic's signed documents and of rooms' requests to join, and
// the answer to "which room is this?" for a TLS connection.
//
// The hub makes no document and its word enrols nobody. Whoever holds a valid signature may replace a document:
// the signature is the permission. What is stored was verified under the owner root that was current then, and
// everything is verified again at each start and after each new owner root. The first owner root is put in place
// by somebody at the hub (Trust); later ones are signed by the former.
//
// Devices are known by the public key of their self-signed certificate alone: there is no CA. A key that the roster
// does not list, or not any more, or whose roster has expired, is nobody.
//
// Not protected: a hub can withhold documents and requests. Devices notice by expiry.
package fleet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/alcove-room/alcove/provisioning/document"
)

// Errors that a caller tells apart, beside those of provisioning/document.
var (
	ErrNoRoot = errors.New("the hub has no owner root: run alcove-hub trust")
	ErrDemo   = errors.New("a demonstration's owner root is only for hubs whose listeners are all on loopback")
	ErrPin    = errors.New("the owner root does not name this hub's key: run alcove-hub pin and sign a root with it")
)

// Options of a Fleet; every field is needed.
type Options struct {
	Store Store
	Log   *slog.Logger
	// Pin is the hash of the SubjectPublicKeyInfo of the devices listener's key.
	Pin document.Hash
	// Loopback says that every listener is on loopback: only then may the owner root be a demonstration's.
	Loopback bool
	// Enrolments bounds requests for each address, Uploads documents.
	Enrolments, Uploads Limit
}

// Limit bounds how often the peer at an address may do something.
type Limit interface {
	Allow(remote string, t time.Time) bool
}

// Fleet is safe for concurrent use.
type Fleet struct {
	o Options

	put sync.Mutex // one change at a time

	mu      sync.RWMutex
	known   *known        // replaced as a whole; guarded by mu
	changed chan struct{} // closed at each change; guarded by mu
	watch   []func()      // called after each change; guarded by mu

	documents *prometheus.CounterVec
	requests  *prometheus.CounterVec
	expiry    prometheus.GaugeFunc
}

// known is one consistent view of what is in force. It is never changed.
type known struct {
	roots    [][]byte
	trust    *document.Trust // nil before the first root
	expired  bool            // the owner root is: nobody is on the roster, only a next root helps
	roster   *document.Roster
	accepted map[string]accepted // by kind
}

type accepted struct {
	state    document.State
	envelope []byte
}

// kind is the key of a document in the store. A config has a target; the other types are for everybody.
func kind(t document.Type, target string) string {
	if t == document.TypeConfig {
		return string(t) + "/" + target
	}
	return string(t)
}

// New verifies what the store holds. Without an owner root the Fleet works and knows nobody.
func New(ctx context.Context, o Options) (*Fleet, error) {
	f := &Fleet{o: o, changed: make(chan struct{})}
	f.documents = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "alcove_hub_documents_total", Help: "Documents that were put, by outcome."}, []string{"outcome"})
	f.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "alcove_hub_enrolments_total", Help: "Requests of boxes to be enrolled, by outcome."}, []string{"outcome"})
	f.expiry = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "alcove_hub_roster_expiry_timestamp_seconds", Help: "When the roster in force expires; 0 without one."}, f.rosterExpiry)
	for _, outcome := range []string{"stored", "refused", "failed"} {
		f.documents.WithLabelValues(outcome)
		f.requests.WithLabelValues(outcome)
	}
	k, err := f.load(ctx)
	if err != nil {
		return nil, err
	}
	f.known = k
	return f, nil
}

// Metrics returns the collectors to register.
func (f *Fleet) Metrics() []prometheus.Collector {
	return []prometheus.Collector{f.documents, f.requests, f.expiry}
}

func (f *Fleet) rosterExpiry() float64 {
	if r := f.view().roster; r != nil {
		return float64(r.Expires.Unix())
	}
	return 0
}

// load reads and verifies everything.
func (f *Fleet) load(ctx context.Context) (*known, error) {
	k := &known{accepted: make(map[string]accepted)}
	var err error
	if k.roots, err = f.o.Store.OwnerRoots(ctx); err != nil {
		return nil, err
	}
	if len(k.roots) == 0 {
		return k, nil
	}
	if err := f.loadRoots(k); err != nil {
		return nil, err
	}
	stored, err := f.o.Store.Documents(ctx)
	if err != nil {
		return nil, err
	}
	for name, envelope := range stored {
		e, err := document.ParseEnvelope(envelope)
		if err == nil {
			err = k.accept(e, envelope, time.Now())
		}
		if err != nil { // expired, or its key was taken out of the root: it is out of force, not the hub
			f.o.Log.Warn("a stored document is not in force", "kind", name, "err", err)
		}
	}
	return k, nil
}

func (f *Fleet) loadRoots(k *known) error {
	var chain []*document.Envelope
	for _, raw := range k.roots {
		e, err := document.ParseEnvelope(raw)
		if err != nil {
			return fmt.Errorf("stored owner root: %w", err)
		}
		chain = append(chain, e)
	}
	clinic := chain[0].PayloadHash()
	trust, err := document.VerifyOwnerRoot(clinic, chain, time.Now())
	if errors.Is(err, document.ErrExpired) {
		// The chain is still what the next root must follow, so it is verified as of the day it was made.
		last, ierr := document.Inspect(chain[len(chain)-1])
		root, ok := last.(*document.OwnerRoot)
		if ierr != nil || !ok {
			return fmt.Errorf("stored owner root: %w", err)
		}
		k.expired = true
		f.o.Log.Error("the owner root has expired: no room is served until the next one is put", "expired", root.Expires)
		trust, err = document.VerifyOwnerRoot(clinic, chain, root.Issued)
	}
	if err != nil {
		return fmt.Errorf("stored owner root: %w", err)
	}
	if err := f.fits(trust.Root()); err != nil {
		return err
	}
	k.trust = trust
	return nil
}

// fits refuses owner roots that this hub must not serve.
func (f *Fleet) fits(r *document.OwnerRoot) error {
	if r.Demo && !f.o.Loopback {
		return ErrDemo
	}
	if !r.Pins(f.o.Pin) {
		return ErrPin
	}
	return nil
}

// accept verifies one document and puts it in force in k, which nobody else sees yet.
func (k *known) accept(e *document.Envelope, raw []byte, now time.Time) error {
	t, err := e.Type()
	if err != nil {
		return err
	}
	if t == document.TypeOwnerRoot {
		return document.ErrPayloadType
	}
	// The target is needed to find the former document; it counts only after the verdict below.
	d, err := document.Inspect(e)
	if err != nil {
		return err
	}
	target := document.TargetAll
	if c, ok := d.(*document.Config); ok {
		target = c.Target
	}
	name := kind(t, target)
	state := k.accepted[name].state
	switch t {
	case document.TypeRoster:
		r, err := document.Verify[document.Roster](e, k.trust, state, now)
		if err != nil {
			return err
		}
		k.roster, d = r, r
	case document.TypePeople:
		d, err = verified(document.Verify[document.People](e, k.trust, state, now))
	case document.TypeConfig:
		d, err = verified(document.Verify[document.Config](e, k.trust, state, now))
	default:
		return document.ErrPayloadType
	}
	if err != nil {
		return err
	}
	k.accepted[name] = accepted{state.After(e, d), raw}
	return nil
}

// verified keeps a nil pointer from becoming an interface that is not nil.
func verified[T document.Document](d T, err error) (document.Document, error) {
	if err != nil {
		return nil, err
	}
	return d, nil
}

func (f *Fleet) view() *known {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.known
}

// Watch has fn called after each change of what is in force. fn must not block.
func (f *Fleet) Watch(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watch = append(f.watch, fn)
}

func (f *Fleet) replace(k *known) {
	f.mu.Lock()
	f.known = k
	close(f.changed)
	f.changed = make(chan struct{})
	watch := f.watch
	f.mu.Unlock()
	for _, fn := range watch {
		fn()
	}
}

// Trust stores the first owner root. It is called by somebody at the hub, once.
func (f *Fleet) Trust(ctx context.Context, raw []byte) (document.Hash, error) {
	f.put.Lock()
	defer f.put.Unlock()
	e, err := document.ParseEnvelope(raw)
	if err != nil {
		return document.Hash{}, err
	}
	had := f.view().roots
	if len(had) > 0 && !bytes.Equal(had[0], raw) {
		return document.Hash{}, fmt.Errorf("the hub trusts another owner root: %w", ErrExists)
	}
	clinic := e.PayloadHash()
	t, err := document.VerifyOwnerRoot(clinic, []*document.Envelope{e}, time.Now())
	if err != nil {
		return document.Hash{}, err
	}
	if err := f.fits(t.Root()); err != nil {
		return document.Hash{}, err
	}
	if len(had) == 0 {
		if err := f.o.Store.AddOwnerRoot(ctx, uint64(t.Root().Version), raw); err != nil {
			return document.Hash{}, err
		}
		k, err := f.load(ctx)
		if err != nil {
			return document.Hash{}, err
		}
		f.replace(k)
	}
	return clinic, nil
}

// Put verifies a document and stores it.
func (f *Fleet) Put(ctx context.Context, want document.Type, raw []byte) error {
	f.put.Lock()
	defer f.put.Unlock()
	e, err := document.ParseEnvelope(raw)
	if err != nil {
		return err
	}
	if t, err := e.Type(); err != nil || t != want {
		return fmt.Errorf("%w: the path says %s", document.ErrPayloadType, want)
	}
	k := f.view()
	switch {
	case k.trust == nil:
		return ErrNoRoot
	case want == document.TypeOwnerRoot:
		return f.putRoot(ctx, k, e, raw)
	case k.expired:
		return document.ErrExpired
	}
	next := k.clone()
	if err := next.accept(e, raw, time.Now()); err != nil {
		return err
	}
	target := document.TargetAll
	if d, err := document.Inspect(e); err == nil {
		if c, ok := d.(*document.Config); ok {
			target = c.Target
		}
	}
	if err := f.o.Store.PutDocument(ctx, kind(want, target), raw, time.Now()); err != nil {
		return err
	}
	f.replace(next)
	return nil
}

func (f *Fleet) putRoot(ctx context.Context, k *known, e *document.Envelope, raw []byte) error {
	t, err := k.trust.Next(e, time.Now())
	if err != nil {
		return err
	}
	if t.Root().Version == k.trust.Root().Version {
		return nil // the same again
	}
	if err := f.fits(t.Root()); err != nil {
		return err
	}
	if err := f.o.Store.AddOwnerRoot(ctx, uint64(t.Root().Version), raw); err != nil {
		return err
	}
	next, err := f.load(ctx)
	if err != nil {
		return err
	}
	f.replace(next)
	return nil
}

func (k *known) clone() *known {
	n := *k
	n.accepted = make(map[string]accepted, len(k.accepted)+1)
	for name, a := range k.accepted {
		n.accepted[name] = a
	}
	return &n
}

// inForce returns the roster if it counts now.
func (k *known) inForce(now time.Time) *document.Roster {
	if k.expired || k.roster == nil || !now.Before(k.roster.Expires) {
		return nil
	}
	return k.roster
}

// Device returns the roster's entry for a connection's key.
func (f *Fleet) Device(spki []byte) (document.Device, bool) {
	now := time.Now()
	r := f.view().inForce(now)
	if r == nil || len(spki) == 0 {
		return document.Device{}, false
	}
	d, ok := r.ByTLS(spki, now)
	if !ok {
		return document.Device{}, false
	}
	return *d, true
}

// Label returns the label of a room by its name, if a device stands in it.
func (f *Fleet) Label(room string) (string, bool) {
	now := time.Now()
	r := f.view().inForce(now)
	if r == nil {
		return "", false
	}
	for _, d := range r.Devices {
		if d.Room == room && now.Before(d.NotAfter) {
			return d.Label, true
		}
	}
	return "", false
}

// Clinic is the SHA-256 of the first owner root's payload in hex; "" while there is none.
func (f *Fleet) Clinic() string {
	if t := f.view().trust; t != nil {
		return t.Clinic().String()
	}
	return ""
}

// Demo reports whether the owner root says that this is a demonstration.
func (f *Fleet) Demo() bool {
	t := f.view().trust
	return t != nil && t.Root().Demo
}

// Ready says why the hub cannot serve rooms; nil when it can.
func (f *Fleet) Ready() error {
	if f.view().trust == nil {
		return ErrNoRoot
	}
	return nil
}

// PeerKey is the SubjectPublicKeyInfo of the client certificate. TLS has proved that the client holds the key.
func PeerKey(r *http.Request) []byte {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil
	}
	return r.TLS.PeerCertificates[0].RawSubjectPublicKeyInfo
}

// Caller returns the device that sent the request.
func (f *Fleet) Caller(r *http.Request) (document.Device, bool) { return f.Device(PeerKey(r)) }

// PinOf is the hash that owner roots name a key by.
func PinOf(spki []byte) document.Hash { return sha256.Sum256(spki) }
