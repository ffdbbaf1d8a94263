package hub

import (
	"errors"
	"net/http"
	"time"

	"github.com/alcove-room/alcove/provisioning/hub/answer"
	"github.com/alcove-room/alcove/provisioning/hub/people"
	"github.com/alcove-room/alcove/provisioning/hub/sessions"
)

const maxAdmin = 16 << 10

type participant struct {
	ID   string `json:"id,omitempty"`
	Role string `json:"role"`
	Name string `json:"name"`
}

type sessionRequest struct {
	Room         string        `json:"room"`
	Starts       time.Time     `json:"starts"`
	Ends         time.Time     `json:"ends"`
	Participants []participant `json:"participants"`
}

type sessionAnswer struct {
	SID          string        `json:"sid"`
	Room         string        `json:"room"`
	Starts       time.Time     `json:"starts"`
	Ends         time.Time     `json:"ends"`
	Participants []participant `json:"participants"`
}

func sessionOf(s sessions.Session) sessionAnswer {
	a := sessionAnswer{SID: s.SID.String(), Room: s.Room, Starts: s.Starts, Ends: s.Ends, Participants: []participant{}}
	for _, p := range s.Participants {
		a.Participants = append(a.Participants, participant{ID: p.ID, Role: string(p.Role), Name: p.Name})
	}
	return a
}

// adminHandler is the socket of the front desk and IT: who may open the socket is both.
func (h *hub) adminHandler() http.Handler {
	desk := people.Identity{Subject: "socket", Roles: []people.Role{people.FrontDesk, people.IT}, Time: time.Now()}
	return people.Gate(h.adminRoutes(), func(*http.Request) (people.Identity, error) { return desk, nil }, h.log)
}

func (h *hub) adminRoutes() []people.Route {
	return append([]people.Route{
		{Pattern: "POST /v1/sessions", Op: people.MakeSession, Handler: h.addSession},
		{Pattern: "GET /v1/sessions", Op: people.MakeSession, Handler: h.listSessions},
		{Pattern: "DELETE /v1/sessions/{sid}", Op: people.MakeSession, Handler: h.cancelSession},
		{Pattern: "POST /v1/sessions/{sid}/invitations", Op: people.MakeSession, Handler: h.invite},
	}, h.people.DeskRoutes()...)
}

func (h *hub) addSession(w http.ResponseWriter, r *http.Request) {
	var req sessionRequest
	if err := answer.Read(w, r, maxAdmin, &req); err != nil {
		answer.Refuse(w, http.StatusBadRequest, "malformed", err.Error())
		return
	}
	v := sessions.Session{Room: req.Room, Starts: req.Starts, Ends: req.Ends}
	for _, p := range req.Participants {
		v.Participants = append(v.Participants, sessions.Participant{Role: people.Role(p.Role), Name: p.Name})
	}
	v, err := h.sessions.Add(r.Context(), v)
	if err != nil {
		h.refuseDesk(w, err)
		return
	}
	answer.JSON(w, http.StatusOK, sessionOf(v))
}

func (h *hub) listSessions(w http.ResponseWriter, r *http.Request) {
	list, err := h.sessions.List(r.Context())
	if err != nil {
		h.refuseDesk(w, err)
		return
	}
	a := struct {
		Sessions []sessionAnswer `json:"sessions"`
	}{[]sessionAnswer{}}
	for _, v := range list {
		a.Sessions = append(a.Sessions, sessionOf(v))
	}
	answer.JSON(w, http.StatusOK, a)
}

func (h *hub) cancelSession(w http.ResponseWriter, r *http.Request) {
	sid, err := sessions.ParseSID(r.PathValue("sid"))
	if err == nil {
		err = h.sessions.Cancel(r.Context(), sid)
	} else {
		err = sessions.ErrNotFound
	}
	if err != nil {
		h.refuseDesk(w, err)
		return
	}
	answer.JSON(w, http.StatusOK, struct{}{})
}

func (h *hub) invite(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Participant string `json:"participant"`
	}
	if err := answer.Read(w, r, maxAdmin, &req); err != nil {
		answer.Refuse(w, http.StatusBadRequest, "malformed", err.Error())
		return
	}
	sid, err := sessions.ParseSID(r.PathValue("sid"))
	if err != nil {
		h.refuseDesk(w, sessions.ErrNotFound)
		return
	}
	i, err := h.sessions.Invite(r.Context(), sid, req.Participant)
	if err != nil {
		h.refuseDesk(w, err)
		return
	}
	answer.JSON(w, http.StatusOK, struct {
		Link    string    `json:"link"`
		Expires time.Time `json:"expires"`
	}{i.Link, i.Expires})
}

func (h *hub) refuseDesk(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, sessions.ErrNotFound):
		answer.Refuse(w, http.StatusNotFound, "unknown", "There is no such session or participant. See alcove-hub session list.")
	case errors.Is(err, sessions.ErrOver):
		answer.Refuse(w, http.StatusGone, "over", "The session is over. Make a new one with alcove-hub session add.")
	case errors.Is(err, sessions.ErrRequest):
		answer.Refuse(w, http.StatusBadRequest, "request", err.Error())
	default:
		h.log.Error("the front desk's request", "err", err)
		answer.Failed(w)
	}
}
