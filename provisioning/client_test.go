package provisioning

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alcove-room/alcove/provisioning/document"
)

// identity is the keys of a box or a hub.
type identity struct {
	cert tls.Certificate
	spki []byte
}

func newIdentity(t testing.TB) identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return identity{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, spki}
}

func (i identity) TLSCertificate() tls.Certificate { return i.cert }
func (i identity) TLSSPKI() []byte                 { return i.spki }
func (i identity) SignSPKI() []byte                { return i.spki }
func (i identity) pin() document.Hash              { return document.SPKIHash(i.spki) }

// testHub is a devices listener that does what a test says.
type testHub struct {
	*httptest.Server
	key identity
	box identity
}

func newTestHub(t testing.TB, h http.HandlerFunc) *testHub {
	t.Helper()
	hub := &testHub{key: newIdentity(t), box: newIdentity(t)}
	hub.Server = httptest.NewUnstartedServer(h)
	hub.Server.TLS = &tls.Config{Certificates: []tls.Certificate{hub.key.cert}, MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert}
	hub.Server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	hub.StartTLS()
	t.Cleanup(hub.Close)
	return hub
}

func (h *testHub) client(t testing.TB, pins ...document.Hash) *Client {
	t.Helper()
	c, err := NewClient(h.URL, pins, h.box.cert)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestPin(t *testing.T) {
	hub := newTestHub(t, func(w http.ResponseWriter, r *http.Request) {
		if document.SPKIHash(r.TLS.PeerCertificates[0].RawSubjectPublicKeyInfo).IsZero() || r.TLS.Version != tls.VersionTLS13 {
			t.Error("without our key, or not TLS 1.3")
		}
		fmt.Fprint(w, `{"documents":[]}`)
	})
	ask := func(c *Client) error { _, err := c.Documents(t.Context(), nil, ""); return err }
	if err := ask(hub.client(t, hub.key.pin())); err != nil {
		t.Fatal(err)
	}
	if err := ask(hub.client(t, document.Hash{1}, hub.key.pin())); err != nil {
		t.Fatal("the next key of a rotation: ", err)
	}
	if err := ask(hub.client(t, document.Hash{1})); !errors.Is(err, ErrPin) {
		t.Fatalf("another key: %v", err)
	}
	c := hub.client(t, hub.key.pin())
	if err := ask(c); err != nil || !c.stillPinned() {
		t.Fatal(err)
	}
	c.SetPins([]document.Hash{{1}}) // the clinic takes the key back
	if err := ask(c); !errors.Is(err, ErrPin) || c.stillPinned() {
		t.Fatalf("a key that was taken back: %v", err)
	}
	if _, err := NewClient(hub.URL, nil, hub.box.cert); err == nil {
		t.Fatal("a client without pins")
	}
	for _, bad := range []string{"http://127.0.0.1:1", "127.0.0.1:1", "https://", "", "ftp://x", "https://%zz"} {
		if _, err := NewClient(bad, []document.Hash{{1}}, hub.box.cert); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if a := (&testHub{Server: &httptest.Server{URL: "https://hub.example"}, box: hub.box}).client(t, document.Hash{1}).Address(); a != "hub.example:443" {
		t.Errorf("address %s", a)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	hub := newTestHub(t, func(http.ResponseWriter, *http.Request) { t.Error("answered") })
	hub.Server.TLS.MinVersion, hub.Server.TLS.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, err := hub.client(t, hub.key.pin()).Documents(t.Context(), nil, ""); err == nil {
		t.Fatal("TLS 1.2 was taken")
	}
}

func TestHostileAnswers(t *testing.T) {
	var answer http.HandlerFunc
	hub := newTestHub(t, func(w http.ResponseWriter, r *http.Request) { answer(w, r) })
	c := hub.client(t, hub.key.pin())
	for name, a := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example/", http.StatusTemporaryRedirect)
		},
		"to itself": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusPermanentRedirect)
		},
		"too large": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"documents":[],"x":%q}`, make([]byte, maxAnswer))
		},
		"duplicate":    func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"documents":[],"documents":[]}`) },
		"other case":   func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"Documents":[]}`) },
		"unknown name": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"documents":[],"more":1}`) },
		"no JSON":      func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `<html>`) },
		"empty":        func(http.ResponseWriter, *http.Request) {},
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, `{`)
		},
	} {
		answer = a
		if docs, err := c.Documents(t.Context(), nil, ""); err == nil {
			t.Errorf("%s: %v", name, docs)
		}
	}
	answer = func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(409)
		fmt.Fprintf(w, `{"error":"used","message":"\u001b[2J%s"}`, strings.Repeat("x", 5000))
	}
	_, err := c.Documents(t.Context(), nil, "")
	var refusal *HubError
	if !errors.As(err, &refusal) || refusal.Status != 409 || refusal.Code != "used" || strings.Contains(err.Error(), "\x1b") || len(err.Error()) > 2*maxWords {
		t.Fatalf("%q", err)
	}
	answer = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502); fmt.Fprint(w, "<html>") }
	if _, err = c.Documents(t.Context(), nil, ""); !errors.As(err, &refusal) || refusal.Code != "Bad Gateway" {
		t.Fatal(err)
	}
}

func TestWhatIsAskedFor(t *testing.T) {
	var query, claim string
	hub := newTestHub(t, func(w http.ResponseWriter, r *http.Request) {
		query, claim = r.URL.Query().Get("have"), r.Header.Get("Alcove-Claim")
		fmt.Fprint(w, `{"documents":[]}`)
	})
	have := map[document.Type]document.Order{document.TypeRoster: {Root: 1, Serial: 4}, document.TypeOwnerRoot: {Root: 1, Serial: 1}}
	if _, err := hub.client(t, hub.key.pin()).Documents(t.Context(), have, "c-1"); err != nil {
		t.Fatal(err)
	}
	if query != "owner-root:1.1,roster:1.4" || claim != "c-1" {
		t.Fatalf("%q %q", query, claim)
	}
}

func TestFollowPace(t *testing.T) {
	var mu sync.Mutex
	asked := 0
	hub := newTestHub(t, func(w http.ResponseWriter, _ *http.Request) { // never waits, never has news
		mu.Lock()
		asked++
		mu.Unlock()
		fmt.Fprint(w, `{"documents":[]}`)
	})
	c := newClinic(t, hub.key.pin())
	s := c.store(t, hub.box.spki)
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	Follow(ctx, hub.client(t, hub.key.pin()), s, func() string { return "" }, func() { t.Error("changed") }, func(err error) { t.Error(err) })
	if asked < 2 || asked > 6 {
		t.Fatalf("asked %d times in 1.5 s", asked)
	}
}

func TestFollowBacksOff(t *testing.T) {
	hub := newTestHub(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	c := newClinic(t, hub.key.pin())
	s := c.store(t, hub.box.spki)
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	failed := 0
	Follow(ctx, hub.client(t, hub.key.pin()), s, func() string { return "" }, func() {}, func(error) { failed++ })
	if failed < 2 || failed > 5 {
		t.Fatalf("failed %d times in 1.5 s", failed)
	}
}

func TestEnrol(t *testing.T) {
	var request document.Enrolment
	hub := newTestHub(t, func(w http.ResponseWriter, r *http.Request) {
		raw := make([]byte, r.ContentLength)
		_, _ = r.Body.Read(raw)
		if err := document.Decode(raw, &request); err != nil {
			t.Error(err)
		}
	})
	c := newClinic(t, hub.key.pin())
	claim := c.claim(hub.URL)
	trust, err := claim.Verify(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	nonce := make([]byte, document.JoinTokenSize)
	if err := Enrol(t.Context(), hub.client(t, hub.key.pin()), claim, trust, nonce, hub.box); err != nil {
		t.Fatal(err)
	}
	if !request.Prove(claim.JoinToken, trust.RootHash(), hub.key.pin()) {
		t.Fatal("the proof does not hold")
	}
	if request.Prove(claim.JoinToken, trust.RootHash(), document.Hash{1}) {
		t.Fatal("the proof holds for another hub")
	}
	if err := Enrol(t.Context(), hub.client(t, document.Hash{1}), claim, trust, nonce, hub.box); !errors.Is(err, ErrPin) {
		t.Fatal(err)
	}
}
