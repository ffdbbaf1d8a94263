package people

import (
	"encoding/base64"
	"errors"
	"net/http"
	"time"

	"github.com/alcove-room/alcove/provisioning/hub/answer"
)

// DeskRoutes are the operations of the front desk and IT.
func (s *Service) DeskRoutes() []Route {
	return []Route{
		{"POST /v1/people", ManagePeople, s.addPerson},
		{"GET /v1/people", ReadPeople, s.listPeople},
		{"DELETE /v1/people/{subject}", ManagePeople, s.removePerson},
		{"POST /v1/people/{subject}/registration", ManagePeople, s.newRegistration},
		{"POST /v1/people/{subject}/totp", ManagePeople, s.newTOTP},
		{"POST /v1/people/{subject}/recovery", ManagePeople, s.newRecovery},
		{"POST /v1/people/{subject}/pin", SetPIN, s.newPIN},
		{"POST /v1/people/{subject}/visits", SetPIN, s.newVisit},
	}
}

type personRequest struct {
	Subject string   `json:"subject"`
	Name    string   `json:"name"`
	Roles   []string `json:"roles"`
}

type passkeyAnswer struct {
	ID        string    `json:"id"`
	PublicKey string    `json:"public_key"`
	RPID      string    `json:"rp_id"`
	AAGUID    string    `json:"aaguid"`
	Check     string    `json:"check"`
	Created   time.Time `json:"created"`
}

type personAnswer struct {
	Subject  string          `json:"subject"`
	Name     string          `json:"name"`
	Roles    []Role          `json:"roles"`
	Passkeys []passkeyAnswer `json:"passkeys"`
	TOTP     bool            `json:"totp"`
	PIN      string          `json:"pin"` // none, set or locked
}

func (s *Service) addPerson(w http.ResponseWriter, r *http.Request) {
	var req personRequest
	if err := answer.Read(w, r, maxBody, &req); err != nil {
		s.refuseDesk(w, err)
		return
	}
	p := Person{Subject: req.Subject, Name: req.Name}
	for _, role := range req.Roles {
		p.Roles = append(p.Roles, Role(role))
	}
	s.told(w, struct{}{}, s.Add(r.Context(), p))
}

func (s *Service) listPeople(w http.ResponseWriter, r *http.Request) {
	list, err := s.store.People(r.Context())
	if err != nil {
		s.refuseDesk(w, err)
		return
	}
	a := struct {
		People []personAnswer `json:"people"`
	}{[]personAnswer{}}
	for _, p := range list {
		v, err := personOf(p)
		if err != nil {
			s.refuseDesk(w, err)
			return
		}
		a.People = append(a.People, v)
	}
	answer.JSON(w, http.StatusOK, a)
}

func personOf(p Person) (personAnswer, error) {
	v := personAnswer{Subject: p.Subject, Name: p.Name, Roles: p.Roles, Passkeys: []passkeyAnswer{}, TOTP: p.TOTP, PIN: "none"}
	if p.PIN {
		v.PIN = map[bool]string{true: "locked", false: "set"}[p.PINTries >= pinTries]
	}
	b64 := base64.RawURLEncoding.EncodeToString
	for _, k := range p.Passkeys {
		public, err := k.Public()
		if err != nil {
			return v, err
		}
		v.Passkeys = append(v.Passkeys, passkeyAnswer{
			b64(k.ID), b64(public.PublicKey), k.RPID, b64(public.AAGUID), public.Check, k.Created.Truncate(time.Second)})
	}
	return v, nil
}

func (s *Service) removePerson(w http.ResponseWriter, r *http.Request) {
	s.told(w, struct{}{}, s.store.RemovePerson(r.Context(), r.PathValue("subject")))
}

// empty reads a body that says nothing; the content type keeps cross-site forms out.
func (s *Service) empty(w http.ResponseWriter, r *http.Request) bool {
	var none struct{}
	err := answer.Read(w, r, maxBody, &none)
	if err != nil {
		s.refuseDesk(w, err)
	}
	return err == nil
}

func (s *Service) newRegistration(w http.ResponseWriter, r *http.Request) {
	if !s.empty(w, r) {
		return
	}
	registration, expires, err := s.Register(r.Context(), r.PathValue("subject"))
	s.told(w, registrationAnswer{registration, expires.Truncate(time.Second)}, err)
}

func (s *Service) newTOTP(w http.ResponseWriter, r *http.Request) {
	if !s.empty(w, r) {
		return
	}
	uri, err := s.SetTOTP(r.Context(), r.PathValue("subject"))
	s.told(w, struct {
		URI string `json:"uri"`
	}{uri}, err)
}

func (s *Service) newRecovery(w http.ResponseWriter, r *http.Request) {
	if !s.empty(w, r) {
		return
	}
	codes, err := s.SetRecovery(r.Context(), r.PathValue("subject"))
	s.told(w, struct {
		Codes []string `json:"codes"`
	}{codes}, err)
}

func (s *Service) newPIN(w http.ResponseWriter, r *http.Request) {
	var req struct {
		PIN string `json:"pin"` // "" for a random one
	}
	if err := answer.Read(w, r, maxBody, &req); err != nil {
		s.refuseDesk(w, err)
		return
	}
	pin, err := s.SetPIN(r.Context(), r.PathValue("subject"), req.PIN)
	s.told(w, struct {
		PIN string `json:"pin"`
	}{pin}, err)
}

func (s *Service) newVisit(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Participant string `json:"participant"`
	}
	if err := answer.Read(w, r, maxBody, &req); err != nil {
		s.refuseDesk(w, err)
		return
	}
	s.told(w, struct{}{}, s.SetVisit(r.Context(), req.Participant, r.PathValue("subject")))
}

func (s *Service) told(w http.ResponseWriter, v any, err error) {
	if err != nil {
		s.refuseDesk(w, err)
		return
	}
	answer.JSON(w, http.StatusOK, v)
}

func (s *Service) refuseDesk(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, answer.ErrBody):
		answer.Refuse(w, http.StatusBadRequest, "malformed", err.Error())
	case errors.Is(err, ErrRequest):
		answer.Refuse(w, http.StatusBadRequest, "request", err.Error())
	case errors.Is(err, ErrNotFound):
		answer.Refuse(w, http.StatusNotFound, "unknown", "There is no such person or participant. See alcove-hub person list.")
	case errors.Is(err, ErrExists):
		answer.Refuse(w, http.StatusConflict, "exists", "There is a person with this pseudonym already.")
	default:
		s.log.Error("the desk's request about people", "err", err)
		answer.Failed(w)
	}
}
