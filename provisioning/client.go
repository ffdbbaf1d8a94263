// Package provisioning is the room's side of its talk with the clinic's hub: it enrols a new box with a
// claim, fetches the clinic's signed documents, and carries the relay connection of a session.
//
// The hub is not trusted with anything but delivery. The connection proves whom we talk to (TLS 1.3, the
// hub's public key pinned by the owner root, our own key named in the roster; there is no certificate
// authority), and what arrives counts only after provisioning/document has verified the clinic's
// signatures. What the hub says of itself, such as who is knocking, is shown as the hub's word.
package provisioning

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/alcove-room/alcove/provisioning/document"
)

// maxAnswer bounds what is read of one answer of the hub.
const maxAnswer = 4 << 20

// requestTimeout is how long an answer may take to its last byte; a long poll takes up to 55 s.
const requestTimeout = 90 * time.Second

// ErrPin says that the server at the hub's address does not hold a key that the clinic has pinned.
var ErrPin = errors.New("the hub's key is not one that the clinic has pinned")

// Client speaks to the devices listener of one hub. It is safe for concurrent use.
type Client struct {
	base *url.URL
	pins atomic.Pointer[[]document.Hash]
	tls  *tls.Config
	http *http.Client
	seen atomic.Pointer[document.Hash] // the pinned key that the hub last showed
}

// NewClient returns a client for the hub at base (https://host:port). The server must present a key whose
// SHA-256 over its DER SubjectPublicKeyInfo is in pins; identity is this room's own certificate.
func NewClient(base string, pins []document.Hash, identity tls.Certificate) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("hub address: %w", err)
	}
	if u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("hub address %q: it must begin with https:// and name a host", base)
	}
	if len(pins) == 0 {
		return nil, errors.New("no pinned key for the hub: the owner root names none")
	}
	c := &Client{base: u}
	c.SetPins(pins)
	c.tls = c.pinnedTLS(identity)
	transport := &http.Transport{
		TLSClientConfig:       c.tls,
		ForceAttemptHTTP2:     false,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 70 * time.Second, // a long poll answers within 55 s
		IdleConnTimeout:       90 * time.Second,
	}
	c.http = &http.Client{Transport: transport, CheckRedirect: refuseRedirect}
	return c, nil
}

// SetPins replaces the pinned keys, for connections from now on: the clinic's owner root has changed. Connections that
// stand to a key that is pinned no more are dropped as soon as they are idle.
func (c *Client) SetPins(pins []document.Hash) {
	pins = slices.Clone(pins)
	c.pins.Store(&pins)
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
}

// stillPinned says whether the key that the hub last showed is pinned now.
func (c *Client) stillPinned() bool {
	seen := c.seen.Load()
	return seen != nil && slices.Contains(*c.pins.Load(), *seen)
}

// Address is the hub's host:port.
func (c *Client) Address() string {
	if c.base.Port() == "" {
		return net.JoinHostPort(c.base.Hostname(), "443")
	}
	return c.base.Host
}

// pinnedTLS checks the peer's public key and nothing else: names and authorities say nothing here, the pin
// comes from a document under the clinic's offline key.
func (c *Client) pinnedTLS(identity tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{identity},
		InsecureSkipVerify: true, // replaced by VerifyConnection, which also runs on resumption
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return ErrPin
			}
			pin := document.SPKIHash(s.PeerCertificates[0].RawSubjectPublicKeyInfo)
			if !slices.Contains(*c.pins.Load(), pin) {
				return ErrPin
			}
			c.seen.Store(&pin)
			return nil
		},
	}
}

func refuseRedirect(*http.Request, []*http.Request) error {
	return errors.New("the hub answered with a redirect, which it never does")
}

// TLS returns the pinned client configuration, for connections that are not HTTP.
func (c *Client) TLS() *tls.Config { return c.tls.Clone() }

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// HubError is a refusal that the hub gave in words.
type HubError struct {
	Status  int    `json:"-"`
	Code    string `json:"error"`
	Message string `json:"message"`
}

func (e *HubError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("the hub answered %d %s", e.Status, e.Code)
	}
	return fmt.Sprintf("the hub answered %d %s: %s", e.Status, e.Code, e.Message)
}

// maxWords is how much of the hub's words is taken into errors, and so into logs.
const maxWords = 200

// printable makes the hub's words fit for a log and a terminal.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, " "))
	for i := range s {
		if i >= maxWords {
			return s[:i]
		}
	}
	return s
}

// do sends body as JSON (nil: none) and decodes the answer into out (nil: dropped).
func (c *Client) do(ctx context.Context, method, path string, header http.Header, body, out any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var payload io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		payload = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base.String()+path, payload)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("talk to the hub: %w", err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("read the hub's answer: %w", err)
	}
	if len(raw) > maxAnswer {
		return fmt.Errorf("the hub's answer is larger than %d bytes", maxAnswer)
	}
	if res.StatusCode/100 != 2 {
		refusal := &HubError{}
		if document.Decode(raw, refusal) != nil {
			refusal = &HubError{Code: http.StatusText(res.StatusCode)}
		}
		refusal.Status, refusal.Code, refusal.Message = res.StatusCode, printable(refusal.Code), printable(refusal.Message)
		return refusal
	}
	if out == nil {
		return nil
	}
	if err := document.Decode(raw, out); err != nil {
		return fmt.Errorf("the hub's answer: %w", err)
	}
	return nil
}
