package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"github.com/alcove-room/alcove/daemon/session"
	"github.com/alcove-room/alcove/provisioning/document"
)

// The control socket is the touch: what is pressed in the room arrives here and nowhere else. Whoever may
// open the socket is in the room, so it belongs to the screen's user alone (mode 0600).

const maxControlBody = 4 << 10

// action is one press. Fields that a verb does not use are empty.
type action struct {
	Person       string `json:"person,omitempty"`
	WhenAdmitted bool   `json:"when_admitted,omitempty"`
	Reason       string `json:"reason,omitempty"`
}

// touch is what can be pressed in the room.
type touch interface {
	Status() Status
	Start(whenAdmitted bool) error
	Pause() error
	Admit(person string) error
	Refuse(person, reason string) error
	Remove(person, reason string) error
	Mute(muted bool) error
	Camera(on bool) error
	End(reason string) error
}

var errNoSession = errors.New("no session is open in this room now")

// controlHandler serves the presses of what find returns: a box that belongs to no clinic has nothing to press.
func controlHandler(find func() (touch, error)) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		t, err := find()
		if err != nil {
			answer(w, Status{}, nil)
			return
		}
		answer(w, t.Status(), nil)
	})
	press := func(verb string, do func(touch, action) error) {
		mux.HandleFunc("POST /v1/"+verb, func(w http.ResponseWriter, r *http.Request) {
			var a action
			raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxControlBody))
			if err == nil && len(raw) > 0 {
				err = document.Decode(raw, &a)
			}
			if err != nil {
				refuse(w, http.StatusBadRequest, err)
				return
			}
			t, err := find()
			if err == nil {
				err = do(t, a)
			}
			if err != nil {
				answer(w, nil, err)
				return
			}
			answer(w, t.Status(), nil)
		})
	}
	press("start", func(t touch, a action) error { return t.Start(a.WhenAdmitted) })
	press("pause", func(t touch, _ action) error { return t.Pause() })
	press("admit", func(t touch, a action) error { return t.Admit(a.Person) })
	press("refuse", func(t touch, a action) error { return t.Refuse(a.Person, a.Reason) })
	press("remove", func(t touch, a action) error { return t.Remove(a.Person, a.Reason) })
	press("mute", func(t touch, _ action) error { return t.Mute(true) })
	press("unmute", func(t touch, _ action) error { return t.Mute(false) })
	press("camera-off", func(t touch, _ action) error { return t.Camera(false) })
	press("camera-on", func(t touch, _ action) error { return t.Camera(true) })
	press("end", func(t touch, a action) error { return t.End(a.Reason) })
	return mux
}

func answer(w http.ResponseWriter, status any, err error) {
	var not *session.NotNow
	switch {
	case errors.As(err, &not), errors.Is(err, errNoSession):
		refuse(w, http.StatusConflict, err)
	case err != nil:
		refuse(w, http.StatusInternalServerError, err)
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(status) // the reader has gone: nothing to tell it
	}
}

func refuse(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": http.StatusText(code), "message": err.Error()})
}

// listenControl makes the control socket for its owner alone. It is made in a folder that nobody else can enter and
// moved into its place when mode and owner are right, so there is no moment at which others could open it; what
// stood in its place, a symbolic link too, is replaced and not followed.
func listenControl(path, owner string) (l net.Listener, err error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".c") // mode 0700
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	defer os.RemoveAll(dir)
	made := filepath.Join(dir, "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	listener.SetUnlinkOnClose(false) // its name is another one soon
	defer func() {
		if err != nil {
			listener.Close()
		}
	}()
	if err := os.Chmod(made, 0o600); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if owner != "" {
		uid, err := lookupUser(owner)
		if err == nil {
			err = os.Chown(made, uid, -1)
		}
		if err != nil {
			return nil, fmt.Errorf("give control socket to %s: %w", owner, err)
		}
	}
	if err := os.Rename(made, path); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return listener, nil
}

func lookupUser(name string) (int, error) {
	if uid, err := strconv.Atoi(name); err == nil {
		return uid, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(u.Uid)
}

// serveControl serves the socket until ctx ends.
func serveControl(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}
