package hub

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/alcove-room/alcove/provisioning/document"
	"github.com/alcove-room/alcove/provisioning/hub/fleet"
)

func TestDevicesListener(t *testing.T) {
	w := start(t)
	w.addSession()
	old := w.device(w.box)
	conf := old.Transport.(*http.Transport).TLSClientConfig
	conf.MinVersion, conf.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, err := old.Get(w.config.Devices.URL + "/v1/documents/roster"); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("TLS 1.2: %v", err)
	}
	pinned := *w.clinic
	pinned.pin = document.Hash{1}
	wrong := &world{t: t, config: w.config, clinic: &pinned}
	if _, err := wrong.device(w.box).Get(w.config.Devices.URL + "/v1/documents/roster"); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("wrong pin: %v", err)
	}
	get := func(c *http.Client, path, origin string) (int, string) {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, w.config.Devices.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if origin != "" {
			req.Header.Set("Origin", origin)
		}
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		raw, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(raw)
	}
	for _, c := range []*http.Client{w.device(newBox(t)), w.device(box{})} {
		for _, path := range []string{"/v1/device/relay", "/v1/device/documents", "/sfu/rtc"} {
			if status, body := get(c, path, ""); status != http.StatusForbidden || !strings.Contains(body, "unknown_device") {
				t.Errorf("unknown key at %s: %d %s", path, status, body)
			}
		}
	}
	if status, _ := get(w.device(w.box), "/v1/documents/roster", w.config.CallOrigin); status != http.StatusForbidden {
		t.Errorf("a browser at the devices listener: %d", status)
	}
	if status, _ := get(w.device(w.box), "/sfu/twirp/livekit.RoomService/ListRooms", ""); status != http.StatusNotFound {
		t.Errorf("the room API through the proxy: %d", status)
	}

	// Taken off the roster: the open relay is closed, and it does not come back.
	room := w.room(w.box)
	room.want("sessions")
	w.put("roster", w.clinic.roster(), http.StatusOK)
	if code := room.want("closed")["code"]; code != 4005 {
		t.Errorf("closed with %v", code)
	}
	if status, _ := get(w.device(w.box), "/v1/device/relay", ""); status != http.StatusForbidden {
		t.Errorf("revoked key: %d", status)
	}
}

func TestDocumentsAndEnrolment(t *testing.T) {
	w := start(t)
	other := newClinic(t, w.clinic.pin, true)
	other.hash = w.clinic.hash
	for name, v := range map[string]struct {
		envelope []byte
		status   int
		code     string
	}{
		"another clinic's key": {other.roster(), http.StatusForbidden, "signature"},
		"replay":               {func() []byte { w.clinic.seral = 0; return w.clinic.roster() }(), http.StatusConflict, "conflict"},
		"not JSON":             {[]byte("x"), http.StatusBadRequest, "malformed"},
		"a root as roster":     {marshal(t, w.clinic.root), http.StatusBadRequest, "type"},
	} {
		if code := w.put("roster", v.envelope, v.status); code != v.code {
			t.Errorf("%s: %q", name, code)
		}
	}
	if code := w.put("owner-root", marshal(t, w.clinic.signRoot(2, []document.Hash{{9}})), http.StatusForbidden); code != "pin" {
		t.Errorf("a root without this hub's pin: %q", code)
	}

	// A box enrols: the long poll answers as soon as the roster is put.
	b := newBox(t)
	e := document.Enrolment{ClaimID: "claim-1", TLSSPKI: b.spki, SignSPKI: newBox(t).spki,
		Nonce: make([]byte, document.JoinTokenSize), Proof: make([]byte, 32)}
	post := func(client *http.Client, e document.Enrolment, want int) string {
		t.Helper()
		raw, err := jsonOf(e)
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequest(http.MethodPost, w.config.Devices.URL+"/v1/enroll", bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		return do(t, client, req, want, nil)
	}
	if code := post(w.device(newBox(t)), e, http.StatusForbidden); code != "key" {
		t.Errorf("another connection's key: %q", code)
	}
	post(w.device(b), e, http.StatusOK)
	post(w.device(b), e, http.StatusOK) // again, after an answer was lost
	thief := newBox(t)
	stolen := e
	stolen.TLSSPKI = thief.spki
	if code := post(w.device(thief), stolen, http.StatusConflict); code != "used" {
		t.Errorf("a claim used twice: %q", code)
	}
	var got document.Enrolment
	req, _ := http.NewRequest(http.MethodGet, w.config.Devices.URL+"/v1/enroll/claim-1", nil)
	do(t, w.device(box{}), req, http.StatusOK, &got)
	if !bytes.Equal(got.TLSSPKI, e.TLSSPKI) || !bytes.Equal(got.Proof, e.Proof) {
		t.Errorf("stored request %+v", got)
	}
	poll := func(have, claim string) (list struct {
		Documents []document.Envelope `json:"documents"`
	}) {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, w.config.Devices.URL+"/v1/device/documents?have="+have, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Alcove-Claim", claim)
		do(t, w.device(b), req, http.StatusOK, &list)
		return list
	}
	if list := poll("", "claim-1"); len(list.Documents) != 2 || list.Documents[0].PayloadHash() != w.clinic.hash {
		t.Errorf("first poll: %d documents", len(list.Documents))
	}
	began := time.Now()
	done := make(chan int, 1)
	go func() { done <- len(poll("owner-root:1.1,roster:1.1", "claim-1").Documents) }()
	time.Sleep(100 * time.Millisecond)
	w.clinic.seral = 1
	w.put("roster", w.clinic.roster(b.entry(t, "box-9", "room-9")), http.StatusOK)
	if n := <-done; n != 1 || time.Since(began) > 5*time.Second {
		t.Errorf("the poll brought %d documents after %v", n, time.Since(began))
	}
}

func TestDemoStaysOnLoopback(t *testing.T) {
	c := testConfig(t)
	pin, err := MakeKey(c.State)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if _, err := MakeKey(c.State); !errors.Is(err, ErrKeyExists) {
		t.Errorf("second init: %v", err)
	}
	demo := newClinic(t, pin, true)
	far := c
	far.Devices.Listen = "0.0.0.0:8444"
	if far.Loopback() {
		t.Fatal("0.0.0.0 is no loopback address")
	}
	if _, err := Trust(t.Context(), far, marshal(t, demo.root), log); !errors.Is(err, fleet.ErrDemo) {
		t.Errorf("a demonstration off loopback: %v", err)
	}
	if err := Run(t.Context(), c, Options{Log: log, Page: testPage()}); !errors.Is(err, fleet.ErrNoRoot) {
		t.Errorf("without an owner root: %v", err)
	}
	if _, err := Trust(t.Context(), c, marshal(t, newClinic(t, document.Hash{7}, true).root), log); !errors.Is(err, fleet.ErrPin) {
		t.Errorf("a root with another pin: %v", err)
	}
	if _, err := Trust(t.Context(), c, marshal(t, demo.root), log); err != nil {
		t.Fatal(err)
	}
	if _, err := Trust(t.Context(), c, marshal(t, newClinic(t, pin, true).root), log); !errors.Is(err, fleet.ErrExists) {
		t.Errorf("a second first root: %v", err)
	}
	if err := Run(t.Context(), far, Options{Log: log, Page: testPage()}); !errors.Is(err, fleet.ErrDemo) {
		t.Errorf("the same state moved off loopback: %v", err)
	}
}
