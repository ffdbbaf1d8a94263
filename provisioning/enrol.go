package provisioning

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/alcove-room/alcove/provisioning/document"
)

// Identity is the keys of this box, as enrolment needs them.
type Identity interface {
	TLSCertificate() tls.Certificate
	TLSSPKI() []byte
	SignSPKI() []byte
}

// Enrol asks the hub of a claim to keep this box's request for the clinic. It may be repeated: the same box
// asks for the same. The answer comes later, as a roster that lists the box.
//
// nonce is document.JoinTokenSize random bytes, the same in every repetition: the hub keeps one request per claim.
func Enrol(ctx context.Context, c *Client, claim *document.Claim, trust *document.Trust, nonce []byte, id Identity) error {
	if err := c.handshake(ctx); err != nil {
		return err
	}
	pin := c.seen.Load()
	if pin == nil {
		return ErrPin
	}
	request := claim.Enrol(id.TLSSPKI(), id.SignSPKI(), nonce, trust.RootHash(), *pin)
	if err := c.do(ctx, http.MethodPost, "/v1/enroll", nil, request, nil); err != nil {
		return fmt.Errorf("enrol: %w", err)
	}
	return nil
}

// handshake learns which of the pinned keys the hub shows: the proof of enrolment is bound to it.
func (c *Client) handshake(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	d := tls.Dialer{Config: c.tls}
	conn, err := d.DialContext(ctx, "tcp", c.Address())
	if err != nil {
		return fmt.Errorf("reach the hub: %w", err)
	}
	return conn.Close()
}

// Documents waits, up to the hub's 55 s, for documents newer than those in have and returns them unverified.
// claimID is set while the box is not in the roster yet.
func (c *Client) Documents(ctx context.Context, have map[document.Type]document.Order, claimID string) ([]*document.Envelope, error) {
	var list []string
	for _, t := range document.Types() {
		if o, ok := have[t]; ok {
			list = append(list, string(t)+":"+o.String())
		}
	}
	header := http.Header{}
	if claimID != "" {
		header.Set("Alcove-Claim", claimID)
	}
	var answer struct {
		Documents []*document.Envelope `json:"documents"`
	}
	path := "/v1/device/documents?have=" + url.QueryEscape(strings.Join(list, ","))
	if err := c.do(ctx, http.MethodGet, path, header, nil, &answer); err != nil {
		return nil, err
	}
	return answer.Documents, nil
}

const (
	// followMost bounds the back-off of Follow.
	followMost = 15 * time.Second
	// followPace is the least time that an answer without news takes: one that comes earlier did not wait, and a hub
	// that never waits must not keep the box busy.
	followPace = 5 * time.Second
)

// Follow keeps the store up to date until ctx ends. changed is called after each change, from this goroutine.
func Follow(ctx context.Context, c *Client, s *Store, claimID func() string, changed func(), failed func(error)) {
	wait := redialFirst
	for ctx.Err() == nil {
		began := time.Now()
		envelopes, err := c.Documents(ctx, s.Have(), claimID())
		var news bool
		if err == nil {
			if news, err = s.Apply(envelopes, time.Now()); news {
				changed()
			}
		}
		if err == nil && (news || time.Since(began) >= followPace) {
			wait = redialFirst
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			failed(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, followMost)
	}
}

// ErrNotEnrolled says that no claim was ever followed here.
var ErrNotEnrolled = errors.New("this box belongs to no clinic yet")
