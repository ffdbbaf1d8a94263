package people_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-webauthn/webauthn/protocol"

	"github.com/alcove-room/alcove/provisioning/hub/people"
	"github.com/alcove-room/alcove/provisioning/hub/sessions"
	"github.com/alcove-room/alcove/provisioning/hub/store"
)

const (
	callOrigin    = "https://call.clinic.example"
	consoleOrigin = "https://desk.clinic.example"
)

type always struct{}

func (always) Allow(string, time.Time) bool { return true }

// world is a Service over a real store, with its handlers.
type world struct {
	t       *testing.T
	db      *store.Store
	s       *people.Service
	handler http.Handler
}

func start(t *testing.T, idp ...people.OIDC) *world {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "hub.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	o := people.Options{
		Store: db, Log: slog.New(slog.DiscardHandler), CallOrigin: callOrigin, ConsoleOrigin: consoleOrigin,
		Addresses: always{}, Address: sessions.AddressOf,
	}
	if len(idp) > 0 {
		o.OIDC = idp[0]
	}
	s, err := people.New(o)
	if err != nil {
		t.Fatal(err)
	}
	h := s.HTTP(func(r *http.Request) people.Site {
		if r.Header.Get("Origin") == consoleOrigin {
			return people.Console
		}
		return people.Call
	})
	return &world{t, db, s, people.Gate(h.Routes(), h.Who, slog.New(slog.DiscardHandler))}
}

func (w *world) person(subject string, roles ...people.Role) {
	w.t.Helper()
	if err := w.s.Add(w.t.Context(), people.Person{Subject: subject, Name: "Dr. " + subject, Roles: roles}); err != nil {
		w.t.Fatal(err)
	}
}

// browser keeps cookies as a browser at one address would.
type browser struct {
	w       *world
	origin  string
	remote  string
	cookies map[string]string
	bearer  string
}

func (w *world) browser(origin string) *browser {
	return &browser{w: w, origin: origin, remote: "192.0.2.1:1", cookies: make(map[string]string)}
}

// do sends a request and returns the status and the decoded answer.
func (b *browser) do(method, path string, body any) (int, map[string]any) {
	b.w.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		b.w.t.Fatal(err)
	}
	r := httptest.NewRequest(method, path, bytes.NewReader(raw))
	r.RemoteAddr = b.remote
	r.Header.Set("Origin", b.origin)
	r.Header.Set("Content-Type", "application/json")
	for name, value := range b.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	if b.bearer != "" {
		r.Header.Set("Authorization", "Bearer "+b.bearer)
	}
	rec := httptest.NewRecorder()
	b.w.handler.ServeHTTP(rec, r)
	for _, c := range rec.Result().Cookies() {
		if !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || !strings.HasPrefix(c.Name, "__Host-") {
			b.w.t.Errorf("cookie %+v", c)
		}
		if b.cookies[c.Name] = c.Value; c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		}
	}
	var a map[string]any
	if err := json.Unmarshal(rec.Body.Bytes(), &a); err != nil {
		b.w.t.Fatalf("%s: %v", rec.Body, err)
	}
	return rec.Code, a
}

// want is do with a check of the status, or of the error code of a refusal.
func (b *browser) want(want any, method, path string, body any) map[string]any {
	b.w.t.Helper()
	status, a := b.do(method, path, body)
	if want != status && want != a["error"] {
		b.w.t.Fatalf("%s %s: %d %v, want %v", method, path, status, a, want)
	}
	return a
}

// register registers a passkey of a person at a site.
func (w *world) register(subject, origin string) *authenticator {
	w.t.Helper()
	token, _, err := w.s.Register(w.t.Context(), subject)
	if err != nil {
		w.t.Fatal(err)
	}
	a, b := newAuthenticator(w.t, origin), w.browser(origin)
	begun := b.want(200, "POST", "/v1/register/begin", map[string]any{"registration": token})
	made := b.want(200, "POST", "/v1/register", map[string]any{
		"registration": token, "ceremony": begun["ceremony"], "response": a.create(begun)})
	if made["id"] != b64(a.id) || len(made["check"].(string)) != 9 {
		w.t.Fatalf("made %v", made)
	}
	b.want("no_match", "POST", "/v1/register/begin", map[string]any{"registration": token})
	return a
}

func (b *browser) signIn(want any, a *authenticator) map[string]any {
	b.w.t.Helper()
	begun := b.want(200, "POST", "/v1/sign-in/passkey/begin", struct{}{})
	return b.want(want, "POST", "/v1/sign-in/passkey", map[string]any{"ceremony": begun["ceremony"], "response": a.get(begun)})
}

func TestPasskey(t *testing.T) {
	w := start(t)
	w.person("weiss", people.Therapist, people.Auditor)
	w.person("other", people.Therapist)
	a := w.register("weiss", callOrigin)
	b := w.browser(callOrigin)
	b.want("sign_in", "GET", "/v1/me", nil)
	id := b.signIn(200, a)
	if id["subject"] != "weiss" || id["method"] != "passkey" || id["level"] != 3.0 || id["bearer"] != nil || len(id["roles"].([]any)) != 2 {
		t.Errorf("identity %v", id)
	}
	if me := b.want(200, "GET", "/v1/me", nil); me["subject"] != "weiss" || me["level"] != 3.0 {
		t.Errorf("me %v", me)
	}

	// The token counts at the site that it was made at, in either form.
	elsewhere := w.browser(consoleOrigin)
	for name, value := range b.cookies {
		elsewhere.cookies[name] = value
		elsewhere.cookies["__Host-alcove-sign-in-console"] = value
		elsewhere.bearer = value
		elsewhere.want("sign_in", "GET", "/v1/me", nil)
	}

	// The room's challenge goes through untouched, with this person's passkeys alone; what verifies it is not here.
	challenge := sha256.Sum256([]byte("of the room"))
	proof := b.want(200, "POST", "/v1/proof", map[string]any{"challenge": b64(challenge[:])})
	if option(t, proof, "options", "publicKey", "challenge") != b64(challenge[:]) ||
		len(option(t, proof, "options", "publicKey", "allowCredentials").([]any)) != 1 {
		t.Errorf("proof %v", proof)
	}
	verifyProof(t, w, a, a.get(proof), challenge[:])
	b.want("malformed", "POST", "/v1/proof", map[string]any{"challenge": b64(challenge[:31])})

	b.want(200, "POST", "/v1/sign-out", struct{}{})
	b.want("sign_in", "GET", "/v1/me", nil)

	b.signIn(200, a)
	if err := w.db.RemovePerson(t.Context(), "weiss"); err != nil {
		t.Fatal(err)
	}
	b.want("sign_in", "GET", "/v1/me", nil)
	b.signIn("no_match", a)
}

// verifyProof does what a room does: it has the people document's key and nothing from the hub but bytes.
func verifyProof(t *testing.T, w *world, a *authenticator, response string, challenge []byte) {
	t.Helper()
	p, err := w.db.Person(t.Context(), "weiss")
	if err != nil {
		t.Fatal(err)
	}
	public, err := p.Passkeys[0].Public()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes([]byte(response))
	if err != nil {
		t.Fatal(err)
	}
	verify := func(challenge []byte) error {
		return parsed.Verify(b64(challenge), a.rpID, "", []string{callOrigin}, nil, nil, protocol.TopOriginExplicitVerificationMode,
			false, true, true, public.PublicKey, protocol.SignaturePolicy{})
	}
	if err := verify(challenge); err != nil {
		t.Errorf("a room refuses the proof: %v", err)
	}
	if verify(make([]byte, 32)) == nil {
		t.Error("another challenge verifies")
	}
}

// TestPasskeyRefused gives every wrong answer that an authenticator, a page or a thief could.
func TestPasskeyRefused(t *testing.T) {
	w := start(t)
	w.person("weiss", people.Therapist)
	a := w.register("weiss", callOrigin)
	console := w.register("weiss", consoleOrigin)
	b := w.browser(callOrigin)
	b.signIn(200, a)
	for name, change := range map[string]func(*authenticator){
		"no user verification": func(a *authenticator) { a.unverified = true },
		"another origin":       func(a *authenticator) { a.origin = "https://call.clinic.example.evil.example" },
		"the console's origin": func(a *authenticator) { a.origin = consoleOrigin },
		"another rp id":        func(a *authenticator) { a.rpID = "clinic.example" },
		"inside a frame":       func(a *authenticator) { a.crossing = true },
		"another key":          func(a *authenticator) { a.key = newAuthenticator(t, callOrigin).key },
		"another credential":   func(a *authenticator) { a.id = []byte("0123456789abcdef") },
		"another person":       func(a *authenticator) { a.handle = make([]byte, 32) },
		"no person":            func(a *authenticator) { a.handle = nil },
		"a copy's counter":     func(a *authenticator) { a.count = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			bad := *a
			change(&bad)
			begun := b.want(200, "POST", "/v1/sign-in/passkey/begin", struct{}{})
			status, got := b.do("POST", "/v1/sign-in/passkey", map[string]any{"ceremony": begun["ceremony"], "response": bad.get(begun)})
			if status == 200 || got["error"] != "no_match" {
				t.Errorf("%d %v", status, got)
			}
		})
	}
	b.signIn("no_match", console)

	// A challenge is used once, by the site that asked, for the purpose that it was made for.
	begun := b.want(200, "POST", "/v1/sign-in/passkey/begin", struct{}{})
	body := map[string]any{"ceremony": begun["ceremony"], "response": a.get(begun)}
	b.want(200, "POST", "/v1/sign-in/passkey", body)
	b.want("no_match", "POST", "/v1/sign-in/passkey", body)
	begun = b.want(200, "POST", "/v1/sign-in/passkey/begin", struct{}{})
	body = map[string]any{"ceremony": begun["ceremony"], "response": a.get(begun)}
	w.browser(consoleOrigin).want("no_match", "POST", "/v1/sign-in/passkey", body)
	b.want("no_match", "POST", "/v1/sign-in/passkey", body)
	challenge := make([]byte, 32)
	proof := b.want(200, "POST", "/v1/proof", map[string]any{"challenge": b64(challenge)})
	begun = b.want(200, "POST", "/v1/sign-in/passkey/begin", struct{}{})
	b.want("no_match", "POST", "/v1/sign-in/passkey", map[string]any{"ceremony": begun["ceremony"], "response": a.get(proof)})
	b.want("malformed", "POST", "/v1/sign-in/passkey", map[string]any{"ceremony": "x", "response": "y", "admin": true})
	b.want("malformed", "POST", "/v1/sign-in/password", map[string]any{"subject": "weiss", "password": "secret"})

	// Registration: user verification, one person's token with that person's ceremony, no second use.
	w.person("other", people.Guest)
	mine, _, _ := w.s.Register(t.Context(), "weiss")
	theirs, _, err := w.s.Register(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*authenticator, map[string]any){
		"no user verification": func(a *authenticator, _ map[string]any) { a.unverified = true },
		"another origin":       func(a *authenticator, _ map[string]any) { a.origin = consoleOrigin },
		"another's token":      func(_ *authenticator, body map[string]any) { body["registration"] = theirs },
		"no token":             func(_ *authenticator, body map[string]any) { body["registration"] = "" },
		"a registered id":      func(n *authenticator, _ map[string]any) { n.id = a.id },
	} {
		n := newAuthenticator(t, callOrigin)
		begun := b.want(200, "POST", "/v1/register/begin", map[string]any{"registration": mine})
		body := map[string]any{"registration": mine, "ceremony": begun["ceremony"]}
		change(n, body)
		body["response"] = n.create(begun)
		if status, got := b.do("POST", "/v1/register", body); status == 200 || got["error"] != "no_match" {
			t.Errorf("%s: %d %v", name, status, got)
		}
	}
}

// code is an independent authenticator app: RFC 6238 from the URI alone.
func code(t *testing.T, uri string, at time.Time) string {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "otpauth" || u.Host != "totp" {
		t.Fatalf("URI %q", uri)
	}
	secret, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(u.Query().Get("secret"))
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha1.New, secret)
	_ = binary.Write(mac, binary.BigEndian, at.Unix()/30)
	sum := mac.Sum(nil)
	return fmt.Sprintf("%06d", binary.BigEndian.Uint32(sum[sum[19]&15:])&0x7fffffff%1_000_000)
}

func TestTOTPSignIn(t *testing.T) {
	w := start(t)
	w.person("weiss", people.Therapist)
	uri, err := w.s.SetTOTP(t.Context(), "weiss")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	attempt := func(browser, remote, subject, code string, at time.Time) (people.Identity, string, string, error) {
		body, _ := json.Marshal(map[string]string{"subject": subject, "code": code})
		return w.s.SignIn(t.Context(), people.ByTOTP, people.Attempt{Site: people.Call, Remote: remote, Browser: browser, Body: body, Now: at})
	}
	// Many at once with one code: one wins.
	var mu sync.Mutex
	var all sync.WaitGroup
	won, known := 0, ""
	for range 4 {
		all.Go(func() {
			id, _, browser, err := attempt("", "192.0.2.1:1", "weiss", code(t, uri, now), now)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
				known = browser
				if id.Level != 1 || id.Method != people.ByTOTP || !id.Time.Equal(now) {
					t.Errorf("identity %+v", id)
				}
			} else if !errors.Is(err, people.ErrNoMatch) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if won != 1 {
		t.Fatalf("%d sign-ins with one code", won)
	}
	now = now.Add(time.Minute)
	if _, _, _, err := attempt(known, "192.0.2.1:1", "weiss", code(t, uri, now), now); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := attempt(known, "192.0.2.1:1", "weiss", code(t, uri, now.Add(-30*time.Second)), now); !errors.Is(err, people.ErrNoMatch) {
		t.Errorf("an older code: %v", err)
	}
	// A thousand strangers guess: most are told to wait, the person is not, and nobody learns who exists.
	for _, subject := range []string{"weiss", "nobody"} {
		outcomes := map[string]int{}
		for i := range 1000 {
			_, _, _, err := attempt("", fmt.Sprintf("198.51.%d.%d:1", i/250, i%250), subject, "000001", now)
			var slow *people.SlowDownError
			outcomes[fmt.Sprint(errors.Is(err, people.ErrNoMatch), errors.As(err, &slow))]++
		}
		if outcomes["true false"] > 20 || outcomes["true false"] < 10 || outcomes["true false"]+outcomes["false true"] != 1000 {
			t.Errorf("%s: %v", subject, outcomes)
		}
	}
	now = now.Add(time.Minute)
	if _, _, _, err := attempt(known, "192.0.2.1:1", "weiss", code(t, uri, now), now); err != nil {
		t.Errorf("strangers lock the person out: %v", err)
	}
	var slow *people.SlowDownError
	if _, _, _, err := attempt("made up", "192.0.2.1:1", "weiss", code(t, uri, now), now); !errors.As(err, &slow) {
		t.Errorf("an invented browser passes for a known one: %v", err)
	}
}

type never struct{}

func (never) Allow(string, time.Time) bool { return false }

// TestFloodedAddress leaves a clinic's address without any budget: who has signed in before still can.
func TestFloodedAddress(t *testing.T) {
	w := start(t)
	w.person("weiss", people.Therapist)
	a := w.register("weiss", callOrigin)
	b := w.browser(callOrigin)
	b.signIn(200, a)
	s, err := people.New(people.Options{Store: w.db, Log: slog.New(slog.DiscardHandler), CallOrigin: callOrigin,
		Addresses: never{}, Address: sessions.AddressOf})
	if err != nil {
		t.Fatal(err)
	}
	h := s.HTTP(func(*http.Request) people.Site { return people.Call })
	w.handler = people.Gate(h.Routes(), h.Who, slog.New(slog.DiscardHandler))
	b.signIn(200, a)
	stranger := w.browser(callOrigin)
	for _, path := range []string{"/v1/sign-in/passkey/begin", "/v1/sign-in/totp", "/v1/sign-in/pin"} {
		stranger.want("slow_down", "POST", path, struct{}{})
	}
	stranger.want("slow_down", "POST", "/v1/register/begin", map[string]any{"registration": "x"})
	stranger.want("slow_down", "POST", "/v1/register", map[string]any{"registration": "x", "ceremony": "x", "response": "x"})
	stranger.want("slow_down", "POST", "/v1/recover", map[string]any{"subject": "x", "code": "x"})
	for range 40 { // a known browser has an end too
		if status, got := b.do("POST", "/v1/sign-in/passkey/begin", struct{}{}); status == 429 {
			if got["error"] != "slow_down" {
				t.Errorf("%v", got)
			}
			return
		}
	}
	t.Error("a known browser may ask for ever")
}

func TestSessionEnds(t *testing.T) {
	w := start(t)
	w.person("weiss", people.Therapist)
	uri, err := w.s.SetTOTP(t.Context(), "weiss")
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	signIn := func(at time.Time) string {
		body, _ := json.Marshal(map[string]string{"subject": "weiss", "code": code(t, uri, at)})
		_, token, _, err := w.s.SignIn(t.Context(), people.ByTOTP, people.Attempt{Site: people.Call, Remote: "192.0.2.1:1", Body: body, Now: at})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	token := signIn(begin)
	at := begin
	for at.Add(29*time.Minute).Sub(begin) < 12*time.Hour {
		at = at.Add(29 * time.Minute)
		if _, err := w.s.Caller(t.Context(), token, people.Call, at); err != nil {
			t.Fatalf("after %s: %v", at.Sub(begin), err)
		}
	}
	if _, err := w.s.Caller(t.Context(), token, people.Call, begin.Add(12*time.Hour)); !errors.Is(err, people.ErrNotFound) {
		t.Errorf("after 12 hours: %v", err)
	}
	begin = begin.Add(24 * time.Hour)
	token = signIn(begin)
	if _, err := w.s.Caller(t.Context(), token, people.Call, begin.Add(30*time.Minute)); !errors.Is(err, people.ErrNotFound) {
		t.Errorf("after 30 idle minutes: %v", err)
	}
	if err := w.db.DropSignIns(t.Context(), begin, begin.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.db.SignIn(t.Context(), people.HashOf(token)); !errors.Is(err, people.ErrNotFound) {
		t.Errorf("what has ended is kept: %v", err)
	}
	for i := range 1000 { // mutations of a token
		raw := []byte(token)
		raw[i%len(raw)] ^= byte(1 + i/len(raw))
		if _, err := w.s.Caller(t.Context(), string(raw), people.Call, begin); !errors.Is(err, people.ErrNotFound) {
			t.Fatalf("mutation %d: %v", i, err)
		}
	}
}

func TestRecovery(t *testing.T) {
	w := start(t)
	w.person("weiss", people.Therapist)
	w.person("other", people.Therapist)
	codes, err := w.s.SetRecovery(t.Context(), "weiss")
	if err != nil || len(codes) != 10 {
		t.Fatal(codes, err)
	}
	b := w.browser(callOrigin)
	b.want("no_match", "POST", "/v1/recover", map[string]any{"subject": "other", "code": codes[0]})
	got := b.want(200, "POST", "/v1/recover", map[string]any{"subject": "weiss", "code": strings.ToLower(codes[0])})
	b.want("no_match", "POST", "/v1/recover", map[string]any{"subject": "weiss", "code": codes[0]})
	b.want("sign_in", "GET", "/v1/me", nil)
	a := newAuthenticator(t, callOrigin)
	begun := b.want(200, "POST", "/v1/register/begin", map[string]any{"registration": got["registration"]})
	b.want(200, "POST", "/v1/register", map[string]any{
		"registration": got["registration"], "ceremony": begun["ceremony"], "response": a.create(begun)})
	b.signIn(200, a)
	if _, err := w.s.SetRecovery(t.Context(), "weiss"); err != nil {
		t.Fatal(err)
	}
	b.want("no_match", "POST", "/v1/recover", map[string]any{"subject": "weiss", "code": codes[1]})
}

func TestPIN(t *testing.T) {
	w := start(t)
	w.person("sam", people.Patient)
	w.person("weiss", people.Therapist)
	if _, err := w.s.SetPIN(t.Context(), "weiss", ""); !errors.Is(err, people.ErrRequest) {
		t.Errorf("a therapist with a PIN: %v", err)
	}
	pin, err := w.s.SetPIN(t.Context(), "sam", "")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	v := sessions.Session{SID: sessions.SID{1}, Room: "r", Starts: now, Ends: now.Add(time.Hour),
		Participants: []sessions.Participant{{ID: "p1", Role: people.Patient, Name: "Sam"}, {ID: "p2", Role: people.Guest, Name: "G"}}}
	if err := w.db.AddSession(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"p1", "p2"} {
		if err := w.db.SetInvitation(t.Context(), v.SID, p, sessions.HashOf("invitation of "+p), now); err != nil {
			t.Fatal(err)
		}
	}
	b := w.browser(callOrigin)
	try := func(want any, invitation, pin string) map[string]any {
		t.Helper()
		return b.want(want, "POST", "/v1/sign-in/pin?keep=bearer", map[string]any{"invitation": invitation, "pin": pin})
	}
	try("no_match", "invitation of p1", pin) // nobody has said who p1 is
	if err := w.s.SetVisit(t.Context(), "p1", "sam"); err != nil {
		t.Fatal(err)
	}
	if err := w.s.SetVisit(t.Context(), "p9", "sam"); !errors.Is(err, people.ErrNotFound) {
		t.Errorf("a participant of nothing: %v", err)
	}
	wrong := "135791"
	if pin == wrong {
		wrong = "135792"
	}
	for range 3 { // fewer than five in a row, again and again
		for range 4 {
			try("no_match", "invitation of p1", wrong)
		}
		id := try(200, "invitation of p1", pin)
		if id["method"] != "pin" || id["level"] != 1.0 || id["bearer"] == nil {
			t.Errorf("identity %v", id)
		}
	}
	b.bearer = try(200, "invitation of p1", pin)["bearer"].(string)
	b.want(200, "GET", "/v1/me", nil)
	try("no_match", "invitation of p2", pin)
	for range 20 { // without an invitation nobody can lock the PIN
		try("no_match", "a guess", wrong)
	}
	for range 5 {
		try("no_match", "invitation of p1", wrong)
	}
	try("locked", "invitation of p1", pin)
	if _, err := w.s.SetPIN(t.Context(), "sam", "270911"); err != nil {
		t.Fatal(err)
	}
	try("no_match", "invitation of p1", pin)
	try(200, "invitation of p1", "270911")
	if err := w.db.EndSession(t.Context(), v.SID, now, "over"); err != nil {
		t.Fatal(err)
	}
	try("no_match", "invitation of p1", "270911")
}
