package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/alcove-room/alcove/provisioning/document"
)

var errPin = errors.New("the hub's key is not one that the clinic has pinned")

// hub speaks to a hub's devices listener. It shows no certificate: what it sends
// is signed, and what it receives is verified or proven.
type hub struct {
	base   string
	client *http.Client
}

func newHub(base string, pins []document.Hash) (*hub, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%w: --hub is the https address of the hub's devices listener", errUsage)
	}
	if len(pins) == 0 {
		return nil, errors.New("the owner root pins no hub key; run alcove-hub pin at the hub and alcovectl root create --pin PIN here")
	}
	transport := &http.Transport{TLSHandshakeTimeout: 10 * time.Second, TLSClientConfig: &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // replaced by VerifyConnection: the key is pinned, there is no CA
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 ||
				!slices.Contains(pins, document.SPKIHash(s.PeerCertificates[0].RawSubjectPublicKeyInfo)) {
				return errPin
			}
			return nil
		},
	}}
	refuse := func(*http.Request, []*http.Request) error {
		return errors.New("the hub redirects, which it never does")
	}
	return &hub{
		base:   strings.TrimSuffix(base, "/"),
		client: &http.Client{Transport: transport, Timeout: 30 * time.Second, CheckRedirect: refuse},
	}, nil
}

// hubError is a refusal in the hub's words.
type hubError struct {
	Code    string `json:"error"`
	Message string `json:"message"`
	status  int
}

func (e *hubError) Error() string {
	return fmt.Sprintf("the hub answered %d %s: %s", e.status, e.Code, e.Message)
}

// Is maps "there is none" to errNotYet.
func (e *hubError) Is(target error) bool {
	return target == errNotYet && e.status == http.StatusNotFound
}

func (h *hub) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, h.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := h.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("reach the hub: %w", err)
	}
	defer response.Body.Close() // read only
	b, err := io.ReadAll(io.LimitReader(response.Body, document.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read the hub's answer: %w", err)
	}
	if response.StatusCode == http.StatusOK {
		return b, nil
	}
	refusal := &hubError{status: response.StatusCode}
	if err := document.Decode(b, refusal); err != nil {
		return nil, fmt.Errorf("the hub answered %s and no reason", response.Status)
	}
	return nil, refusal
}

// enrolment fetches the request that came under a claim.
func (h *hub) enrolment(ctx context.Context, claimID string) (*document.Enrolment, error) {
	b, err := h.do(ctx, http.MethodGet, "/v1/enroll/"+url.PathEscape(claimID), nil)
	if err != nil {
		return nil, err
	}
	var e document.Enrolment
	if err := document.Decode(b, &e); err != nil {
		return nil, fmt.Errorf("the hub's answer: %w", err)
	}
	return &e, e.Validate()
}

func (h *hub) put(ctx context.Context, t document.Type, e *document.Envelope) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = h.do(ctx, http.MethodPut, "/v1/documents/"+string(t), b)
	return err
}

func (h *hub) get(ctx context.Context, t document.Type, target string) (*document.Envelope, error) {
	path := "/v1/documents/" + string(t)
	if target != document.TargetAll {
		path += "?target=" + url.QueryEscape(target)
	}
	b, err := h.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	return document.ParseEnvelope(b)
}

// hub connects with the address given, or with the one last used.
func (f *folder) hub(address string) (*hub, error) {
	if err := f.needTrust(); err != nil {
		return nil, err
	}
	if address == "" {
		address = f.state.Hub
	}
	if address == "" {
		return nil, fmt.Errorf("%w: --hub gives the address of the hub's devices listener", errUsage)
	}
	return newHub(address, f.trust.Root().HubPins)
}
