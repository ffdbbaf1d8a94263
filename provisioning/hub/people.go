package hub

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/alcove-room/alcove/provisioning/hub/answer"
	"github.com/alcove-room/alcove/provisioning/hub/people"
	"github.com/alcove-room/alcove/provisioning/hub/sessions"
)

// cookieName binds the cookie to this host, to TLS (or loopback) and to the whole site (RFC 6265bis, 4.1.3.2).
const cookieName = "__Host-alcove-join"

// maxJoin bounds the body of POST /v1/join.
const maxJoin = 1 << 10

// peopleHandler is the listener for browsers.
func (h *hub) peopleHandler() http.Handler {
	return apiHeaders(h.oneOrigin(people.Gate(h.peopleRoutes(), h.people.HTTP(h.siteOf).Who, h.log)))
}

func (h *hub) peopleRoutes() []people.Route {
	return append([]people.Route{
		{Pattern: "POST /v1/join", Op: people.UseInvitation, Handler: h.postJoin},
		{Pattern: "GET /v1/trust", Op: people.ReadTrust, Handler: h.getTrust},
		{Pattern: "GET /v1/relay", Op: people.Relay, Handler: h.sessions.ServePage},
		{Pattern: "/sfu/", Op: people.UseMedia, Handler: h.sfuHandler().ServeHTTP},
	}, h.people.HTTP(h.siteOf).Routes()...)
}

func (h *hub) getTrust(w http.ResponseWriter, r *http.Request) {
	if !h.trustLimit.Allow(r.RemoteAddr, time.Now()) {
		answer.SlowDown(w)
		return
	}
	h.fleet.ServeTrust(w, r)
}

// siteOf names the page that a request comes from; oneOrigin has checked that it is one of ours.
func (h *hub) siteOf(r *http.Request) people.Site {
	if h.config.ConsoleOrigin != "" && r.Header.Get("Origin") == h.config.ConsoleOrigin {
		return people.Console
	}
	return people.Call
}

// callOnly are the paths that take part in calls: the console has no business there.
func callOnly(path string) bool {
	return path == "/v1/join" || path == "/v1/relay" || strings.HasPrefix(path, "/sfu/")
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	answer.Refuse(w, http.StatusNotFound, "unknown", "There is nothing here.")
}

// sfuHandler is the proxy to the child; with an external LiveKit there is none.
func (h *hub) sfuHandler() http.Handler {
	if h.proxy == nil {
		return http.HandlerFunc(notFound)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !h.sfuLimit.Allow(r.RemoteAddr, time.Now()) {
			answer.SlowDown(w)
			return
		}
		h.proxy.ServeHTTP(w, r)
	})
}

// oneOrigin lets the call page and the console in and no other page: CORS (Fetch standard, 3.2) with exact origins. A
// request without an Origin comes from no page that could use a person's cookie; only reading what is public needs none.
func (h *hub) oneOrigin(next http.Handler) http.Handler {
	ours := func(r *http.Request, origin string) bool {
		return origin == h.config.CallOrigin ||
			origin == h.config.ConsoleOrigin && origin != "" && !callOnly(r.URL.Path)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origins := r.Header.Values("Origin")
		public := len(origins) == 0 && r.Method == http.MethodGet && r.URL.Path == "/v1/trust"
		if !public && (len(origins) != 1 || !ours(r, origins[0])) {
			answer.Refuse(w, http.StatusForbidden, "origin", "This page may not use the hub. Open the link that the clinic sent you.")
			return
		}
		head := w.Header()
		head.Add("Vary", "Origin")
		allowed := h.config.CallOrigin
		if !public {
			allowed = origins[0]
		}
		head.Set("Access-Control-Allow-Origin", allowed)
		head.Set("Access-Control-Allow-Credentials", "true")
		if r.Method == http.MethodOptions {
			head.Set("Access-Control-Allow-Methods", "GET, POST")
			head.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
			head.Set("Access-Control-Max-Age", "600")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

type joinRequest struct {
	Invitation string `json:"invitation"`
}

type joinAnswer struct {
	Bearer      string      `json:"bearer"`
	Participant participant `json:"participant"`
	Session     struct {
		SID    string    `json:"sid"`
		Clinic string    `json:"clinic"`
		Starts time.Time `json:"starts"`
		Ends   time.Time `json:"ends"`
	} `json:"session"`
	Room struct {
		Label string `json:"label"`
	} `json:"room"`
	Demo bool `json:"demo"`
}

func (h *hub) postJoin(w http.ResponseWriter, r *http.Request) {
	outcome := func(code string) { h.joins.WithLabelValues(code).Inc() }
	if !h.joinLimit.Allow(r.RemoteAddr, time.Now()) {
		outcome("slow_down")
		answer.SlowDown(w)
		return
	}
	var req joinRequest
	if err := answer.Read(w, r, maxJoin, &req); err != nil {
		outcome("unknown")
		answer.Refuse(w, http.StatusBadRequest, "malformed", "The request is damaged. Load the page again.")
		return
	}
	var browser string
	if c, err := r.Cookie(cookieName); err == nil {
		browser = c.Value
	}
	j, err := h.sessions.Join(r.Context(), req.Invitation, browser)
	if err != nil {
		outcome(h.refuseJoin(w, err))
		return
	}
	outcome("joined")
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: j.Browser, Path: "/", MaxAge: int(24 * time.Hour / time.Second),
		HttpOnly: true, Secure: true, SameSite: http.SameSiteStrictMode,
	})
	var a joinAnswer
	a.Bearer, a.Demo = j.Bearer, j.Demo
	a.Participant = participant{ID: j.Participant.ID, Role: string(j.Participant.Role), Name: j.Participant.Name}
	a.Session.SID, a.Session.Clinic = j.Session.SID.String(), j.Clinic
	a.Session.Starts, a.Session.Ends = j.Session.Starts, j.Session.Ends
	a.Room.Label = j.Label
	answer.JSON(w, http.StatusOK, a)
}

// refuseJoin answers in words and returns the outcome for the metrics.
func (h *hub) refuseJoin(w http.ResponseWriter, err error) string {
	switch {
	case errors.Is(err, sessions.ErrUnknown):
		answer.Refuse(w, http.StatusNotFound, "unknown", "This link is not valid, or a newer one has replaced it. Ask the clinic for a new link.")
		return "unknown"
	case errors.Is(err, sessions.ErrUsed):
		answer.Refuse(w, http.StatusGone, "used", "This link was opened in another browser. Go back to that browser, or ask the clinic for a new link.")
		return "used"
	case errors.Is(err, sessions.ErrIsOver):
		answer.Refuse(w, http.StatusGone, "over", "This link has ended. The clinic can send a new one.")
		return "over"
	case errors.Is(err, sessions.ErrEarly):
		answer.Refuse(w, http.StatusTooEarly, "early", "You are early. Come back shortly before the appointment.")
		return "early"
	}
	h.log.Error("use an invitation", "err", err)
	answer.Failed(w)
	return "failed"
}
