package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/alcove-room/alcove/daemon/audit"
	"github.com/alcove-room/alcove/daemon/keystore"
	"github.com/alcove-room/alcove/daemon/session"
	"github.com/alcove-room/alcove/provisioning"
	"github.com/alcove-room/alcove/provisioning/document"
)

const (
	// claimEvery is how often an unclaimed box looks for its claim file.
	claimEvery = time.Second
	// dueEvery is how often the room looks whether a session is due, and whether the roster still lists the box.
	dueEvery = 5 * time.Second
	// sessionEnd is how long a session may take to end when the daemon does.
	sessionEnd = 3 * time.Second
	// maxClaim is the largest claim file in bytes: a chain of owner roots with a few recovery keys.
	maxClaim = 1 << 20
)

// box is the device from its carton to its work: without a clinic it waits for a claim, with one it enrols,
// and once the roster lists it, it is a room.
type box struct {
	conf     Config
	log      *slog.Logger
	keys     *keystore.Keystore
	store    *provisioning.Store
	ledger   ledger
	sessions *session.Metrics
	media    *pipelineMetrics
	sink     session.Sink
	clock    session.Clock

	mu   sync.Mutex
	room *room // nil until a clinic is known; guarded by mu
}

func (b *box) run(ctx context.Context) error {
	claim, err := b.awaitClinic(ctx)
	if err != nil {
		return err
	}
	docs := b.store.Current(time.Now())
	client, err := provisioning.NewClient(docs.Hub, docs.Trust.Root().HubPins, b.keys.TLSCertificate())
	if err != nil {
		return err
	}
	defer client.Close()
	session.PrepareSDK(client.TLS(), client.Address())
	g, ctx := errgroup.WithContext(ctx)
	// Relay and capture outlive ctx until the session has said its last words and closed its devices.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	r := b.newRoom(ctx, client, docs)
	b.mu.Lock()
	b.room = r
	b.mu.Unlock()

	listed := make(chan struct{}, 1)
	changed := func() {
		select {
		case listed <- struct{}{}:
		default:
		}
		client.SetPins(b.store.Current(time.Now()).Trust.Root().HubPins)
		r.due(time.Now())
	}
	g.Go(func() error {
		provisioning.Follow(ctx, client, b.store, b.claimID, changed, func(err error) { b.log.Warn("documents", "err", err) })
		return ctx.Err()
	})
	g.Go(func() error { r.pipeline.run(work); return nil })
	g.Go(func() error { return b.enrol(ctx, client, claim, listed) })
	g.Go(func() error { return b.keepRelay(ctx, work, r) })
	g.Go(func() error { return every(ctx, dueEvery, func() { r.due(time.Now()) }) })
	g.Go(func() error {
		<-ctx.Done()
		r.wait(sessionEnd)
		stop()
		return ctx.Err()
	})
	return g.Wait()
}

// keepRelay holds the relay connection for as long as the roster lists this box: a hub closes it to others for good.
func (b *box) keepRelay(ctx, work context.Context, r *room) error {
	for {
		if err := b.awaitListed(ctx); err != nil {
			return err
		}
		listed, cancel := context.WithCancel(work)
		go func() {
			_ = every(listed, time.Second, func() { // ends with listed
				if b.store.Current(time.Now()).Device == nil && r.current() == nil {
					cancel()
				}
			})
		}()
		err := r.relay.Run(listed, r)
		cancel()
		if work.Err() != nil {
			return err
		}
	}
}

func (b *box) newRoom(ctx context.Context, client *provisioning.Client, docs provisioning.Documents) *room {
	p := newPipeline(&childLauncher{command: b.conf.Capture, log: b.log}, docs.Trust.Root().Demo, b.log, b.media)
	return &room{ctx: ctx, log: b.log, store: b.store, keys: b.keys, ledger: b.ledger, pipeline: p,
		metrics: b.sessions, sink: b.sink, clock: b.clock, relay: provisioning.NewRelay(client, b.log), over: make(map[string]time.Time)}
}

// awaitClinic returns when this box belongs to a clinic: from its store, or by a claim that arrives.
func (b *box) awaitClinic(ctx context.Context) (*document.Claim, error) {
	said := ""
	for {
		claim, err := b.readClaim()
		switch {
		case err == nil:
			return claim, nil
		case b.store.Current(time.Now()).Trust != nil:
			return nil, nil // enrolled before; a claim is not needed any more
		case err.Error() != said:
			said = err.Error()
			b.log.Info("no clinic yet", "claim", b.conf.Claim, "err", err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(claimEvery):
		}
	}
}

// readClaim adopts the claim file, if there is one.
func (b *box) readClaim() (*document.Claim, error) {
	raw, err := readClaimFile(b.conf.Claim)
	if err != nil {
		return nil, err
	}
	claim, err := document.ParseClaim(raw)
	if err != nil {
		return nil, err
	}
	if b.store.Current(time.Now()).Claim == claim.ClaimID {
		return claim, nil
	}
	if _, err := claim.Verify(time.Now()); err != nil {
		// Before the audit log hears of it: a bad claim that stays there is looked at each second.
		return nil, errors.New(strings.ReplaceAll(err.Error(), claim.ClaimID, claimName(claim)))
	}
	if err := b.ledger.Permit(audit.EnrolApply, claimName(claim)); err != nil {
		return nil, fmt.Errorf("the log cannot be written, so no claim is followed: %w", err)
	}
	return claim, b.store.Adopt(claim, time.Now())
}

// readClaimFile reads a claim file. The claim decides whose this box is, so nobody else may be able to write it.
func readClaimFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe in its place must not keep us waiting
	if err != nil {
		return nil, fmt.Errorf("read claim: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("read claim: %w", err)
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("claim %s is not a file", path)
	case st.Mode().Perm()&0o022 != 0:
		return nil, fmt.Errorf("claim %s can be written by others than its owner; chmod go-w it", path)
	case st.Size() > maxClaim:
		return nil, fmt.Errorf("claim %s has %d bytes, more than %d", path, st.Size(), maxClaim)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxClaim))
	if err != nil {
		return nil, fmt.Errorf("read claim: %w", err)
	}
	return raw, nil
}

// claimName names a claim in logs. Its id opens the hub's record of the request, so it is not shown.
func claimName(c *document.Claim) string {
	return document.LabelledHash("alcove/claim-name/v1", []byte(c.ClaimID)).String()[:16]
}

// claimID identifies a box that the roster does not list yet.
func (b *box) claimID() string {
	docs := b.store.Current(time.Now())
	if docs.Device != nil {
		return ""
	}
	return docs.Claim
}

// enrol repeats the request until the roster lists this box.
func (b *box) enrol(ctx context.Context, client *provisioning.Client, claim *document.Claim, listed <-chan struct{}) error {
	for claim != nil && b.store.Current(time.Now()).Device == nil {
		docs := b.store.Current(time.Now())
		err := provisioning.Enrol(ctx, client, claim, docs.Trust, docs.Nonce, b.keys)
		var refusal *provisioning.HubError
		switch {
		case err == nil:
			b.log.Info("asked to be enrolled; waiting for the clinic to sign", "claim", claimName(claim))
		case errors.As(err, &refusal):
			b.log.Error("enrolment refused", "err", err)
		default:
			b.log.Warn("enrolment", "err", err)
		}
		wait := 30 * time.Second
		if err != nil {
			wait = 2 * time.Second
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-listed:
		case <-time.After(wait):
		}
	}
	return nil
}

func (b *box) awaitListed(ctx context.Context) error {
	for b.store.Current(time.Now()).Device == nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	b.log.Info("enrolled")
	return nil
}

func every(ctx context.Context, d time.Duration, do func()) error {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			do()
		}
	}
}

// A box that belongs to no clinic has nothing to press; the others are the room's.

func (b *box) touch() (touch, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.room == nil {
		return nil, errNoSession
	}
	return b.room, nil
}
