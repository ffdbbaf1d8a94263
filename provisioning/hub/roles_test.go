package hub

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/alcove-room/alcove/provisioning/hub/people"
)

// person makes a person with one role and signs them in at a site; the bearer is returned.
func (w *world) person(subject, role, origin string) string {
	w.t.Helper()
	w.admin(http.MethodPost, "/v1/people", map[string]any{"subject": subject, "name": "N", "roles": []string{role}}, 200, nil)
	var made struct {
		URI string `json:"uri"`
	}
	w.admin(http.MethodPost, "/v1/people/"+subject+"/totp", struct{}{}, 200, &made)
	raw, err := json.Marshal(map[string]string{"subject": subject, "code": codeOf(w.t, made.URI)})
	if err != nil {
		w.t.Fatal(err)
	}
	status, body := w.request(http.MethodPost, "/v1/sign-in/totp?keep=bearer", origin, "", raw)
	var id struct {
		Bearer string `json:"bearer"`
	}
	if status != 200 || json.Unmarshal(body, &id) != nil || id.Bearer == "" {
		w.t.Fatalf("sign in as %s: %d %s", role, status, body)
	}
	return id.Bearer
}

func codeOf(t *testing.T, uri string) string {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(u.Query().Get("secret"))
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha1.New, secret)
	_ = binary.Write(mac, binary.BigEndian, time.Now().Unix()/30)
	sum := mac.Sum(nil)
	return fmt.Sprintf("%06d", binary.BigEndian.Uint32(sum[sum[19]&15:])&0x7fffffff%1_000_000)
}

// request is one request on the people listener.
func (w *world) request(method, path, origin, bearer string, body []byte) (int, []byte) {
	w.t.Helper()
	req, err := http.NewRequest(method, w.config.People.URL+path, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if origin != "" {
		req.Header.Set("Origin", origin)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	raw, err := io.ReadAll(res.Body)
	if err := res.Body.Close(); err != nil {
		w.t.Error(err)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return res.StatusCode, raw
}

func refusalOf(raw []byte) string {
	var r struct {
		Error string `json:"error"`
	}
	_ = json.Unmarshal(raw, &r) // an answer that is none has no code
	return r.Error
}

// TestRolesOverHTTP tries every role on every route of the people listener of a running hub.
func TestRolesOverHTTP(t *testing.T) {
	const console = "https://desk.clinic.example"
	w := start(t, func(c *Config) { c.ConsoleOrigin = console })
	origin := w.config.CallOrigin
	routes := (&hub{people: newPeople(t), config: w.config}).peopleRoutes()
	tried := map[string]int{}
	for _, role := range append(people.Roles(), "nobody") {
		bearer := ""
		switch role {
		case people.Anyone, people.Device: // no browser has either
			continue
		case "nobody":
		default:
			bearer = w.person(string(role)+"-1", string(role), origin)
		}
		signOutLast(routes)
		for _, route := range routes {
			method, path := methodAndPath(route.Pattern)
			status, body := w.request(method, path, origin, bearer, []byte(`{}`))
			got, open := refusalOf(body), people.Allowed(people.Anyone, route.Op)
			want := ""
			switch {
			case !open && bearer == "":
				want = "sign_in"
			case !open && !people.Allowed(role, route.Op):
				want = "role"
			}
			if (got == "sign_in" || got == "role") && got != want || want != "" && got != want {
				t.Errorf("%s on %s: %d %q, want %q", role, route.Pattern, status, got, want)
			}
			tried[map[string]string{"": "in", "sign_in": "nobody", "role": "refused"}[want]]++
		}
	}
	t.Logf("tried %v", tried)
	for _, class := range []string{"in", "nobody", "refused"} {
		if tried[class] == 0 {
			t.Errorf("nothing tried that ends as %s", class)
		}
	}
	if status, body := w.request("GET", "/v1/people", origin, w.person("it-2", "it", origin), nil); status != 404 {
		t.Errorf("what is not on this listener: %d %s", status, body)
	}

	// The console signs in, and takes no part in calls; its sign-in is none at the call page.
	bearer := w.person("it-3", "it", console)
	if status, _ := w.request("GET", "/v1/me", console, bearer, nil); status != 200 {
		t.Errorf("the console's sign-in: %d", status)
	}
	if _, body := w.request("GET", "/v1/me", origin, bearer, nil); refusalOf(body) != "sign_in" {
		t.Errorf("the console's sign-in at the call page: %s", body)
	}
	for _, path := range []string{"/v1/join", "/v1/relay", "/sfu/rtc"} {
		if _, body := w.request("POST", path, console, bearer, []byte(`{}`)); refusalOf(body) != "origin" {
			t.Errorf("the console on %s: %s", path, body)
		}
	}
	for _, bad := range []string{"", "null", "https://evil.example", console + ".evil.example"} {
		if _, body := w.request("GET", "/v1/me", bad, bearer, nil); refusalOf(body) != "origin" {
			t.Errorf("from %q: %s", bad, body)
		}
	}
}

// signOutLast puts the route that ends the sign-in behind those that need it.
func signOutLast(routes []people.Route) {
	for i, r := range routes {
		if strings.HasSuffix(r.Pattern, "/v1/sign-out") {
			last := len(routes) - 1
			routes[i], routes[last] = routes[last], routes[i]
		}
	}
}

func methodAndPath(pattern string) (method, path string) {
	method, path, ok := strings.Cut(pattern, " ")
	if !ok {
		method, path = "GET", pattern
	}
	return method, strings.NewReplacer("{method}", "totp", "{sid}", base64.RawURLEncoding.EncodeToString(make([]byte, 16)),
		"{subject}", "nobody-here").Replace(path)
}

func newPeople(t *testing.T) *people.Service {
	t.Helper()
	s, err := people.New(people.Options{CallOrigin: "http://127.0.0.1:1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRolesAtTheDesk tries every role on every route of the admin socket, through the gate that stands before it.
func TestRolesAtTheDesk(t *testing.T) {
	h := &hub{people: newPeople(t)}
	for _, role := range append(people.Roles(), "", "root") {
		var routes []people.Route
		entered := ""
		for _, r := range h.adminRoutes() {
			r.Handler = func(http.ResponseWriter, *http.Request) { entered = r.Pattern }
			routes = append(routes, r)
		}
		gate := people.Gate(routes, func(*http.Request) (people.Identity, error) {
			return people.Identity{Roles: []people.Role{role}}, nil
		}, slog.New(slog.DiscardHandler))
		for _, r := range routes {
			entered = ""
			method, path := methodAndPath(r.Pattern)
			rec := httptest.NewRecorder()
			gate.ServeHTTP(rec, httptest.NewRequest(method, path, nil))
			if in := entered == r.Pattern; in != people.Allowed(role, r.Op) || !in && rec.Code != http.StatusForbidden {
				t.Errorf("%q on %s: in %v, %d", role, r.Pattern, in, rec.Code)
			}
		}
	}
	w := start(t)
	for _, r := range h.adminRoutes() { // the socket itself stands for the front desk and IT
		method, path := methodAndPath(r.Pattern)
		if code := w.adminCode(method, path); code == "role" || code == "sign_in" {
			t.Errorf("the socket on %s: %s", r.Pattern, code)
		}
	}
}

// adminCode is the error code of an empty request on the admin socket.
func (w *world) adminCode(method, path string) string {
	w.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, "http://hub"+path, strings.NewReader(`{}`))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	tr := &http.Transport{DisableKeepAlives: true, DialContext: w.dialAdmin}
	res, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	raw, err := io.ReadAll(res.Body)
	if err := res.Body.Close(); err != nil || len(raw) == 0 {
		w.t.Error(err)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return refusalOf(raw)
}

// TestConsoleOrigin refuses consoles whose pages could claim the call page's passkeys, or the other way round.
func TestConsoleOrigin(t *testing.T) {
	c := testConfig(t)
	c.CallOrigin = "https://call.clinic.example"
	for _, bad := range []string{"https://call.clinic.example", "https://call.clinic.example:8443", "https://clinic.example",
		"https://desk.call.clinic.example", "http://desk.clinic.example", "https://desk.clinic.example/"} {
		if c.ConsoleOrigin = bad; c.Validate() == nil {
			t.Errorf("console_origin %s is accepted", bad)
		}
	}
	c.ConsoleOrigin = "https://desk.clinic.example"
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}
