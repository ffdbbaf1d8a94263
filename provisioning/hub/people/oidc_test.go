package people_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
	"golang.org/x/text/language"

	"github.com/alcove-room/alcove/provisioning/hub/people"
)

// said is what a provider says of a sign-in, beside who it was.
type said struct {
	amr   []string
	acr   string
	roles []string
	nonce string // instead of the one that was asked for
}

// idp is a real OpenID Connect provider on loopback, whose people are signed in at once.
type idp struct {
	*storage.Storage
	says atomic.Pointer[said]
}

type authRequest struct {
	op.AuthRequest
	said
}

func (r authRequest) GetAMR() []string { return r.amr }
func (r authRequest) GetACR() string   { return r.acr }

func (r authRequest) GetNonce() string {
	if r.nonce != "" {
		return r.nonce
	}
	return r.AuthRequest.GetNonce()
}

func (s *idp) wrap(r op.AuthRequest, err error) (op.AuthRequest, error) {
	if err != nil {
		return nil, err
	}
	return authRequest{r, *s.says.Load()}, nil
}

func (s *idp) AuthRequestByID(ctx context.Context, id string) (op.AuthRequest, error) {
	return s.wrap(s.Storage.AuthRequestByID(ctx, id))
}

func (s *idp) AuthRequestByCode(ctx context.Context, code string) (op.AuthRequest, error) {
	return s.wrap(s.Storage.AuthRequestByCode(ctx, code))
}

func (s *idp) SetUserinfoFromScopes(_ context.Context, info *oidc.UserInfo, _, _ string, _ []string) error {
	info.AppendClaims("alcove_roles", s.says.Load().roles)
	return nil
}

func (s *idp) SetUserinfoFromRequest(context.Context, *oidc.UserInfo, op.IDTokenRequest, []string) error {
	return nil
}

func startIDP(t *testing.T) (*idp, string) {
	t.Helper()
	var handler http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	client := storage.WebClient("hub", "secret", callOrigin+"/", consoleOrigin+"/")
	s := &idp{Storage: storage.NewStorageWithClients(storage.NewUserStore(server.URL), map[string]*storage.Client{"hub": client})}
	conf := &op.Config{CodeMethodS256: true, AuthMethodPost: true, SupportedUILocales: []language.Tag{language.English}}
	_, _ = rand.Read(conf.CryptoKey[:])
	provider, err := op.NewProvider(conf, s, op.StaticIssuer(server.URL), op.WithAllowInsecure(), op.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", provider)
	mux.HandleFunc("/login/username", func(w http.ResponseWriter, r *http.Request) {
		id := r.URL.Query().Get("authRequestID")
		if err := s.CheckUsernamePassword("test-user2", "verysecure", id); err != nil {
			t.Error(err)
		}
		next := op.AuthCallbackURL(provider)(op.ContextWithIssuer(r.Context(), server.URL), id)
		http.Redirect(w, r, next, http.StatusFound)
	})
	handler = mux
	return s, server.URL
}

// authorize follows the provider's pages to the redirect back to ours.
func authorize(t *testing.T, address string) url.Values {
	t.Helper()
	client := &http.Client{CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if r.URL.Host == strings.TrimPrefix(callOrigin, "https://") {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	res, err := client.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	u, err := res.Location()
	if err != nil {
		t.Fatalf("%s from the provider: %v", res.Status, err)
	}
	if u.Query().Get("code") == "" {
		t.Fatalf("redirect %s", u)
	}
	return u.Query()
}

func TestOIDC(t *testing.T) {
	s, issuer := startIDP(t)
	s.says.Store(&said{amr: []string{"pwd", "mfa"}, roles: []string{"therapist", "patient", "device", "king"}})
	w := start(t, people.OIDC{Issuer: issuer, ClientID: "hub", ClientSecret: "secret", RolesClaim: "alcove_roles", ACR: []string{"urn:mfa"}})
	b := w.browser(callOrigin)
	begin := func() (map[string]any, url.Values) {
		t.Helper()
		begun := b.want(200, "POST", "/v1/sign-in/oidc/begin", struct{}{})
		address := begun["url"].(string)
		q, err := url.Parse(address)
		if err != nil || q.Query().Get("code_challenge_method") != "S256" || q.Query().Get("redirect_uri") != callOrigin+"/" || len(q.Query().Get("nonce")) < 43 {
			t.Fatalf("address %s", address)
		}
		return begun, authorize(t, address)
	}
	finish := func(want any, ceremony any, q url.Values) map[string]any {
		t.Helper()
		return b.want(want, "POST", "/v1/sign-in/oidc", map[string]any{"ceremony": ceremony, "state": q.Get("state"), "code": q.Get("code")})
	}
	begun, q := begin()
	id := finish(200, begun["ceremony"], q)
	roles := id["roles"].([]any)
	if id["method"] != "oidc" || id["level"] != 2.0 || len(roles) != 1 || roles[0] != "therapist" {
		t.Errorf("identity %v", id)
	}
	b.want(200, "GET", "/v1/me", nil)
	finish("no_match", begun["ceremony"], q)

	// Roles are the provider's, each time anew; the person stays the same.
	s.says.Store(&said{acr: "urn:mfa", roles: []string{"it", "auditor"}})
	begun, q = begin()
	again := finish(200, begun["ceremony"], q)
	if roles := again["roles"].([]any); again["subject"] != id["subject"] || len(roles) != 2 || roles[0] != "it" {
		t.Errorf("identity %v", again)
	}

	for name, says := range map[string]said{
		"password alone":   {amr: []string{"pwd"}, roles: []string{"therapist"}},
		"nothing said":     {roles: []string{"therapist"}},
		"another context":  {acr: "urn:pwd", roles: []string{"therapist"}},
		"another nonce":    {amr: []string{"mfa"}, roles: []string{"therapist"}, nonce: "of another sign-in"},
		"no role":          {amr: []string{"mfa"}},
		"roles not theirs": {amr: []string{"mfa"}, roles: []string{"patient", "device", "anyone", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			s.says.Store(&says)
			begun, q := begin()
			finish("no_match", begun["ceremony"], q)
		})
	}

	s.says.Store(&said{amr: []string{"mfa"}, roles: []string{"therapist"}})
	mine, ours := begin()
	theirs, other := begin()
	finish("no_match", mine["ceremony"], other) // a code and state from somebody else's browser
	finish("no_match", theirs["ceremony"], url.Values{"state": other["state"], "code": ours["code"]})
	begun, q = begin()
	w.browser(consoleOrigin).want("no_match", "POST", "/v1/sign-in/oidc",
		map[string]any{"ceremony": begun["ceremony"], "state": q.Get("state"), "code": q.Get("code")})
	begun, q = begin()
	finish("no_match", begun["ceremony"], url.Values{"state": q["state"], "code": {"made up"}})

	none := start(t).browser(callOrigin)
	none.want("unavailable", "POST", "/v1/sign-in/oidc/begin", struct{}{})
}

// TestOIDCProviderGone starts without the provider: other ways in work, this one fails closed.
func TestOIDCProviderGone(t *testing.T) {
	w := start(t, people.OIDC{Issuer: "http://127.0.0.1:1", ClientID: "hub", RolesClaim: "alcove_roles"})
	w.person("weiss", people.Therapist)
	b := w.browser(callOrigin)
	b.want("failed", "POST", "/v1/sign-in/oidc/begin", struct{}{})
	b.signIn(200, w.register("weiss", callOrigin))
}
