package people

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/alcove-room/alcove/provisioning/hub/answer"
)

// The bodies of this package are small; a registration with an attestation is the largest.
const maxBody = 32 << 10

// Cookies are bound to this host and to TLS or loopback (RFC 6265bis, 4.1.3.2). Each site's sign-in has its own.
const (
	callCookie    = "__Host-alcove-sign-in-call"
	consoleCookie = "__Host-alcove-sign-in-console"
	browserCookie = "__Host-alcove-browser"
	browserLasts  = 180 * 24 * time.Hour
)

func cookieOf(site Site) string {
	if site == Console {
		return consoleCookie
	}
	return callCookie
}

// HTTP is sign-in for browsers. siteOf names the site of a request whose Origin was checked before.
type HTTP struct {
	s      *Service
	siteOf func(*http.Request) Site
}

// HTTP returns the handlers for browsers.
func (s *Service) HTTP(siteOf func(*http.Request) Site) HTTP { return HTTP{s, siteOf} }

// Routes are the operations for browsers.
func (h HTTP) Routes() []Route {
	return []Route{
		{"POST /v1/sign-in/passkey/begin", SignInOp, h.begin},
		{"POST /v1/sign-in/oidc/begin", SignInOp, h.beginOIDC},
		{"POST /v1/sign-in/{method}", SignInOp, h.signIn},
		{"POST /v1/register/begin", SignInOp, h.beginRegistration},
		{"POST /v1/register", SignInOp, h.register},
		{"POST /v1/recover", SignInOp, h.recover},
		{"GET /v1/me", OwnSignIn, h.me},
		{"POST /v1/sign-out", OwnSignIn, h.signOut},
		{"POST /v1/proof", OwnProof, h.proof},
	}
}

// Who implements Who: by the site's cookie, or a bearer (RFC 6750, 2.1) for pages that keep their token in memory.
func (h HTTP) Who(r *http.Request) (Identity, error) {
	token := h.token(r)
	if token == "" {
		return Identity{}, ErrNotFound
	}
	return h.s.Caller(r.Context(), token, h.siteOf(r), time.Now())
}

func (h HTTP) token(r *http.Request) string {
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return bearer
	}
	if c, err := r.Cookie(cookieOf(h.siteOf(r))); err == nil {
		return c.Value
	}
	return ""
}

func (h HTTP) attempt(r *http.Request) Attempt {
	a := Attempt{Site: h.siteOf(r), Remote: r.RemoteAddr, Now: time.Now()}
	if c, err := r.Cookie(browserCookie); err == nil {
		a.Browser = c.Value
	}
	return a
}

type identityAnswer struct {
	Subject string    `json:"subject"`
	Name    string    `json:"name"`
	Roles   []Role    `json:"roles"`
	Method  Method    `json:"method"`
	Level   int       `json:"level"`
	Time    time.Time `json:"time"`
	Bearer  string    `json:"bearer,omitempty"`
}

func answerOf(id Identity) identityAnswer {
	return identityAnswer{id.Subject, id.Name, id.Roles, id.Method, id.Level, id.Time.UTC().Truncate(time.Second), ""}
}

type ceremonyAnswer struct {
	Ceremony string `json:"ceremony"`
	Options  any    `json:"options"`
}

func (h HTTP) begin(w http.ResponseWriter, r *http.Request) {
	a := h.attempt(r)
	var none struct{}
	if err := answer.Read(w, r, maxBody, &none); err != nil {
		h.refuse(w, malformed(err), a.Now)
		return
	}
	if err := h.s.admits(r.Context(), a); err != nil {
		h.refuse(w, err, a.Now)
		return
	}
	id, options, err := h.s.passkeys.Begin(a.Site, a.Now)
	if err != nil {
		h.refuse(w, err, a.Now)
		return
	}
	answer.JSON(w, http.StatusOK, ceremonyAnswer{id, options})
}

func (h HTTP) beginOIDC(w http.ResponseWriter, r *http.Request) {
	a := h.attempt(r)
	var none struct{}
	if err := answer.Read(w, r, maxBody, &none); err != nil {
		h.refuse(w, malformed(err), a.Now)
		return
	}
	if h.s.oidc == nil {
		h.refuse(w, ErrUnavailable, a.Now)
		return
	}
	if err := h.s.admits(r.Context(), a); err != nil {
		h.refuse(w, err, a.Now)
		return
	}
	id, address, err := h.s.oidc.Begin(a.Site, a.Now)
	if err != nil {
		h.refuse(w, err, a.Now)
		return
	}
	answer.JSON(w, http.StatusOK, struct {
		Ceremony string `json:"ceremony"`
		URL      string `json:"url"`
	}{id, address})
}

func malformed(err error) error { return fmt.Errorf("%w: %w", ErrMalformed, err) }

func (h HTTP) signIn(w http.ResponseWriter, r *http.Request) {
	a := h.attempt(r)
	keep := r.URL.Query().Get("keep")
	var body json.RawMessage
	if err := answer.Read(w, r, maxBody, &body); err != nil || keep != "" && keep != "bearer" {
		h.refuse(w, ErrMalformed, a.Now)
		return
	}
	a.Body = body
	id, token, browser, err := h.s.SignIn(r.Context(), Method(r.PathValue("method")), a)
	if err != nil {
		h.refuse(w, err, a.Now)
		return
	}
	setCookie(w, browserCookie, browser, browserLasts)
	v := answerOf(id)
	if keep == "bearer" {
		v.Bearer = token
	} else {
		setCookie(w, cookieOf(a.Site), token, signInLasts)
	}
	answer.JSON(w, http.StatusOK, v)
}

func setCookie(w http.ResponseWriter, name, value string, lasts time.Duration) {
	http.SetCookie(w, &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: int(lasts / time.Second),
		HttpOnly: true, Secure: true, SameSite: http.SameSiteStrictMode,
	})
}

func (h HTTP) me(w http.ResponseWriter, r *http.Request) {
	answer.JSON(w, http.StatusOK, answerOf(IdentityOf(r.Context())))
}

func (h HTTP) signOut(w http.ResponseWriter, r *http.Request) {
	if err := h.s.SignOut(r.Context(), h.token(r)); err != nil {
		h.refuse(w, err, time.Now())
		return
	}
	setCookie(w, cookieOf(h.siteOf(r)), "", -time.Second)
	answer.JSON(w, http.StatusOK, struct{}{})
}

func (h HTTP) proof(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Challenge string `json:"challenge"`
	}
	err := answer.Read(w, r, maxBody, &req)
	challenge, bad := base64.RawURLEncoding.Strict().DecodeString(req.Challenge)
	if err != nil || bad != nil || len(challenge) != 32 {
		h.refuse(w, ErrMalformed, time.Now())
		return
	}
	options, err := h.s.passkeys.Prove(r.Context(), IdentityOf(r.Context()).Subject, challenge, h.siteOf(r))
	if err != nil {
		h.refuse(w, err, time.Now())
		return
	}
	answer.JSON(w, http.StatusOK, struct {
		Options any `json:"options"`
	}{options})
}

func (h HTTP) beginRegistration(w http.ResponseWriter, r *http.Request) {
	a := h.attempt(r)
	var req struct {
		Registration string `json:"registration"`
	}
	if err := answer.Read(w, r, maxBody, &req); err != nil {
		h.refuse(w, malformed(err), a.Now)
		return
	}
	if err := h.s.admits(r.Context(), a); err != nil {
		h.refuse(w, err, a.Now)
		return
	}
	id, options, err := h.s.passkeys.BeginRegistration(r.Context(), req.Registration, a.Site, a.Now)
	if err != nil {
		h.refuse(w, err, a.Now)
		return
	}
	answer.JSON(w, http.StatusOK, ceremonyAnswer{id, options})
}

func (h HTTP) register(w http.ResponseWriter, r *http.Request) {
	a := h.attempt(r)
	k, err := h.readRegistration(w, r, a)
	h.s.registrations.WithLabelValues(outcomeOf(err)).Inc()
	if err != nil {
		h.refuse(w, err, a.Now)
		return
	}
	public, err := k.Public()
	if err != nil {
		h.refuse(w, err, a.Now)
		return
	}
	answer.JSON(w, http.StatusOK, struct {
		ID    string `json:"id"`
		Check string `json:"check"`
	}{base64.RawURLEncoding.EncodeToString(k.ID), public.Check})
}

func (h HTTP) readRegistration(w http.ResponseWriter, r *http.Request, a Attempt) (Passkey, error) {
	var req struct {
		Registration string `json:"registration"`
		Ceremony     string `json:"ceremony"`
		Response     string `json:"response"`
	}
	if err := answer.Read(w, r, maxBody, &req); err != nil {
		return Passkey{}, malformed(err)
	}
	if err := h.s.admits(r.Context(), a); err != nil {
		return Passkey{}, err
	}
	return h.s.passkeys.Finish(r.Context(), req.Registration, req.Ceremony, req.Response, a.Site, a.Now)
}

type registrationAnswer struct {
	Registration string    `json:"registration"`
	Expires      time.Time `json:"expires"`
}

func (h HTTP) recover(w http.ResponseWriter, r *http.Request) {
	a := h.attempt(r)
	v, err := h.recovered(w, r, a)
	h.s.signIns.WithLabelValues("recovery", outcomeOf(err)).Inc()
	if err != nil {
		h.refuse(w, err, a.Now)
		return
	}
	answer.JSON(w, http.StatusOK, v)
}

func (h HTTP) recovered(w http.ResponseWriter, r *http.Request, a Attempt) (v registrationAnswer, err error) {
	var req struct {
		Subject string `json:"subject"`
		Code    string `json:"code"`
	}
	if err := answer.Read(w, r, maxBody, &req); err != nil {
		return v, malformed(err)
	}
	if err := h.s.admits(r.Context(), a); err != nil {
		return v, err
	}
	v.Registration, v.Expires, err = h.s.Recover(r.Context(), req.Subject, req.Code, a)
	v.Expires = v.Expires.UTC().Truncate(time.Second)
	return v, err
}

// refuse answers in words that do not tell what was wrong.
func (h HTTP) refuse(w http.ResponseWriter, err error, now time.Time) {
	var slow *SlowDownError
	switch code := outcomeOf(err); code {
	case "slow_down":
		errors.As(err, &slow)
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(slow.Wait.Seconds()))))
		answer.Refuse(w, http.StatusTooManyRequests, code,
			"Too many tries. Try again at "+now.Add(slow.Wait).UTC().Format("15:04:05")+" UTC, or call IT.")
	case "malformed":
		answer.Refuse(w, http.StatusBadRequest, code, "The request is damaged. Load the page again.")
	case "locked":
		answer.Refuse(w, http.StatusForbidden, code, "The PIN was wrong too often. Please call the clinic for a new one.")
	case "unavailable":
		answer.Refuse(w, http.StatusNotFound, code, "This way to sign in is not set up here. Use another, or call IT.")
	case "no_match":
		answer.Refuse(w, http.StatusForbidden, code, "That did not match.")
	default:
		if !errors.Is(err, context.Canceled) {
			h.s.log.Error("a sign-in", "err", err)
		}
		answer.Failed(w)
	}
}
