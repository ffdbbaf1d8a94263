package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/alcove-room/alcove/provisioning/document"
	"github.com/alcove-room/alcove/provisioning/hub/answer"
)

// Bounds of the interface.
const (
	pollTimeout   = 55 * time.Second
	maxEnrolment  = 4 << 10
	maxEnrolments = 1000
	keepEnrolment = 30 * 24 * time.Hour
	claimHeader   = "Alcove-Claim"
)

// Devices adds the paths of the devices listener to mux.
func (f *Fleet) Devices(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/enroll", f.postEnrolment)
	mux.HandleFunc("GET /v1/enroll/{claim}", f.getEnrolment)
	mux.HandleFunc("PUT /v1/documents/{type}", f.putDocument)
	mux.HandleFunc("GET /v1/documents/{type}", f.getDocument)
	mux.HandleFunc("GET /v1/device/documents", f.pollDocuments)
}

func (f *Fleet) putDocument(w http.ResponseWriter, r *http.Request) {
	if !f.o.Uploads.Allow(r.RemoteAddr, time.Now()) {
		answer.SlowDown(w)
		return
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, document.MaxSize))
	if err != nil {
		answer.Refuse(w, http.StatusRequestEntityTooLarge, "too_large", "The document is too large.")
		return
	}
	err = f.Put(r.Context(), document.Type(r.PathValue("type")), raw)
	status, code := verdict(err)
	switch {
	case err == nil:
		f.documents.WithLabelValues("stored").Inc()
		answer.JSON(w, http.StatusOK, struct{}{})
	case status == http.StatusInternalServerError:
		f.documents.WithLabelValues("failed").Inc()
		f.o.Log.Error("store a document", "err", err)
		answer.Failed(w)
	default:
		f.documents.WithLabelValues("refused").Inc()
		answer.Refuse(w, status, code, "The document was not stored: "+err.Error()+".")
	}
}

// verdict maps a refusal to a status and a code. The sender holds the document, so the reason tells no secret.
func verdict(err error) (status int, code string) {
	for _, v := range []struct {
		is     error
		status int
		code   string
	}{
		{ErrNoRoot, http.StatusServiceUnavailable, "no_root"},
		{ErrDemo, http.StatusForbidden, "demo"},
		{ErrPin, http.StatusForbidden, "pin"},
		{document.ErrPayloadType, http.StatusBadRequest, "type"},
		{document.ErrJSON, http.StatusBadRequest, "malformed"},
		{document.ErrInvalid, http.StatusBadRequest, "malformed"},
		{document.ErrReplay, http.StatusConflict, "replay"},
		{document.ErrConflict, http.StatusConflict, "conflict"},
		{document.ErrBroken, http.StatusConflict, "chain"},
		{document.ErrRootVersion, http.StatusConflict, "root_version"},
		{document.ErrExpired, http.StatusForbidden, "expired"},
		{document.ErrNotYet, http.StatusForbidden, "not_yet"},
		{document.ErrOtherClinic, http.StatusForbidden, "other_clinic"},
		{document.ErrSignature, http.StatusForbidden, "signature"},
		{document.ErrUnknownKey, http.StatusForbidden, "signature"},
		{document.ErrWrongRole, http.StatusForbidden, "signature"},
		{document.ErrDuplicateKey, http.StatusForbidden, "signature"},
		{document.ErrThreshold, http.StatusForbidden, "signature"},
	} {
		if errors.Is(err, v.is) {
			return v.status, v.code
		}
	}
	return http.StatusInternalServerError, "failed"
}

func (f *Fleet) getDocument(w http.ResponseWriter, r *http.Request) {
	k := f.view()
	t := document.Type(r.PathValue("type"))
	if t == document.TypeOwnerRoot && len(k.roots) > 0 {
		answer.JSON(w, http.StatusOK, json.RawMessage(k.roots[len(k.roots)-1]))
		return
	}
	target := r.URL.Query().Get("target")
	if target == "" {
		target = document.TargetAll
	}
	a, ok := k.accepted[kind(t, target)]
	if !ok {
		answer.Refuse(w, http.StatusNotFound, "unknown", "The hub has no such document. Sign one and put it.")
		return
	}
	answer.JSON(w, http.StatusOK, json.RawMessage(a.envelope))
}

// enrolment is the request, with what the hub adds when it is asked for it.
func (f *Fleet) postEnrolment(w http.ResponseWriter, r *http.Request) {
	if !f.o.Enrolments.Allow(r.RemoteAddr, time.Now()) {
		answer.SlowDown(w)
		return
	}
	var e document.Enrolment
	err := answer.Read(w, r, maxEnrolment, &e)
	if err == nil {
		err = e.Validate()
	}
	if err != nil {
		f.requests.WithLabelValues("refused").Inc()
		answer.Refuse(w, http.StatusBadRequest, "malformed", "The request to enrol is damaged: "+err.Error()+".")
		return
	}
	if key := PeerKey(r); key == nil || string(key) != string(e.TLSSPKI) {
		f.requests.WithLabelValues("refused").Inc()
		answer.Refuse(w, http.StatusForbidden, "key", "The connection's key is not the one in the request. Connect with the box's own certificate.")
		return
	}
	err = f.storeEnrolment(r.Context(), e)
	switch {
	case err == nil:
		f.requests.WithLabelValues("stored").Inc()
		answer.JSON(w, http.StatusOK, struct{}{})
	case errors.Is(err, ErrExists):
		f.requests.WithLabelValues("refused").Inc()
		answer.Refuse(w, http.StatusConflict, "used", "Another box has used this claim. Make a new claim, and find out which box it was.")
	case errors.Is(err, errFull):
		f.requests.WithLabelValues("refused").Inc()
		answer.SlowDown(w)
	default:
		f.requests.WithLabelValues("failed").Inc()
		f.o.Log.Error("store an enrolment request", "err", err)
		answer.Failed(w)
	}
}

var errFull = errors.New("too many enrolment requests are waiting")

func (f *Fleet) storeEnrolment(ctx context.Context, e document.Enrolment) error {
	f.put.Lock()
	defer f.put.Unlock()
	now := time.Now()
	n, err := f.o.Store.SweepEnrolments(ctx, now.Add(-keepEnrolment))
	if err != nil {
		return err
	}
	if n >= maxEnrolments {
		return errFull
	}
	return f.o.Store.AddEnrolment(ctx, ClaimOf(e.ClaimID), Enrolment{
		TLSKey: e.TLSSPKI, SignKey: e.SignSPKI, Nonce: e.Nonce, Proof: e.Proof, Received: now,
	})
}

func (f *Fleet) getEnrolment(w http.ResponseWriter, r *http.Request) {
	if !f.o.Uploads.Allow(r.RemoteAddr, time.Now()) {
		answer.SlowDown(w)
		return
	}
	id := r.PathValue("claim")
	e, err := f.o.Store.Enrolment(r.Context(), ClaimOf(id))
	if errors.Is(err, ErrNotFound) {
		answer.Refuse(w, http.StatusNotFound, "unknown", "No box has used this claim yet. Start the box with the claim and ask again.")
		return
	}
	if err != nil {
		f.o.Log.Error("read an enrolment request", "err", err)
		answer.Failed(w)
		return
	}
	answer.JSON(w, http.StatusOK, document.Enrolment{
		ClaimID: id, TLSSPKI: e.TLSKey, SignSPKI: e.SignKey, Nonce: e.Nonce, Proof: e.Proof,
	})
}

// pollDocuments answers when there is something newer than the device has, or with an empty list after 55 s.
func (f *Fleet) pollDocuments(w http.ResponseWriter, r *http.Request) {
	have, err := parseHave(r.URL.Query().Get("have"))
	if err != nil {
		answer.Refuse(w, http.StatusBadRequest, "malformed", "have is not a list of type:root.serial.")
		return
	}
	timeout := time.NewTimer(pollTimeout)
	defer timeout.Stop()
	for {
		f.mu.RLock()
		k, changed := f.known, f.changed
		f.mu.RUnlock()
		device, ok := f.mayPoll(r)
		if !ok {
			answer.Refuse(w, http.StatusForbidden, "unknown_device", "This device is not on the clinic's roster. IT must enrol it.")
			return
		}
		if list := k.newer(have, device); len(list) > 0 {
			answer.JSON(w, http.StatusOK, documents{list})
			return
		}
		select {
		case <-changed:
		case <-timeout.C:
			answer.JSON(w, http.StatusOK, documents{[]json.RawMessage{}})
			return
		case <-r.Context().Done():
			return
		}
	}
}

type documents struct {
	Documents []json.RawMessage `json:"documents"`
}

// mayPoll returns the device's id; "" for one that is enrolling, which sees what is meant for all.
func (f *Fleet) mayPoll(r *http.Request) (id string, ok bool) {
	if d, ok := f.Caller(r); ok {
		return d.ID, true
	}
	claim := r.Header.Get(claimHeader)
	if claim == "" {
		return "", false
	}
	e, err := f.o.Store.Enrolment(r.Context(), ClaimOf(claim))
	if err != nil {
		return "", false
	}
	key := PeerKey(r)
	return "", key != nil && string(key) == string(e.TLSKey)
}

func parseHave(s string) (map[document.Type]document.Order, error) {
	have := make(map[document.Type]document.Order)
	if s == "" {
		return have, nil
	}
	for _, part := range strings.Split(s, ",") {
		name, order, _ := strings.Cut(part, ":")
		t := document.Type(name)
		if _, twice := have[t]; twice || !slices.Contains(document.Types(), t) {
			return nil, errors.New("unknown or repeated type")
		}
		o, err := document.ParseOrder(order)
		if err != nil {
			return nil, err
		}
		have[t] = o
	}
	return have, nil
}

// newer lists envelopes beyond what the device has, in the order in which they must be applied.
func (k *known) newer(have map[document.Type]document.Order, device string) []json.RawMessage {
	var list []json.RawMessage
	if from := int(have[document.TypeOwnerRoot].Root); from < len(k.roots) {
		for _, raw := range k.roots[from:] { // roots are versions 1, 2, 3 … without a gap
			list = append(list, raw)
		}
	}
	add := func(t document.Type, names ...string) {
		var best accepted
		for _, name := range names {
			if a, ok := k.accepted[name]; ok && (best.envelope == nil || best.state.In.Less(a.state.In)) {
				best = a
			}
		}
		if best.envelope != nil && have[t].Less(best.state.In) {
			list = append(list, best.envelope)
		}
	}
	add(document.TypeRoster, kind(document.TypeRoster, ""))
	add(document.TypePeople, kind(document.TypePeople, ""))
	if device == "" {
		device = document.TargetAll
	}
	add(document.TypeConfig, kind(document.TypeConfig, document.TargetAll), kind(document.TypeConfig, device))
	return list
}

// ServeTrust is GET /v1/trust: what a page needs to check who it talks with.
func (f *Fleet) ServeTrust(w http.ResponseWriter, _ *http.Request) {
	k := f.view()
	if k.trust == nil {
		answer.Refuse(w, http.StatusServiceUnavailable, "no_root", "The hub is not set up yet. Call IT.")
		return
	}
	t := struct {
		OwnerRoots []json.RawMessage `json:"owner_roots"`
		Roster     json.RawMessage   `json:"roster"`
		People     json.RawMessage   `json:"people"`
		Config     json.RawMessage   `json:"config"`
	}{
		Roster: k.accepted[kind(document.TypeRoster, "")].envelope,
		People: k.accepted[kind(document.TypePeople, "")].envelope,
		Config: k.accepted[kind(document.TypeConfig, document.TargetAll)].envelope,
	}
	for _, raw := range k.roots {
		t.OwnerRoots = append(t.OwnerRoots, raw)
	}
	answer.JSON(w, http.StatusOK, t)
}
