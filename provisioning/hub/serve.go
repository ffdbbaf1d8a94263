package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/alcove-room/alcove/provisioning/hub/answer"
	"github.com/alcove-room/alcove/provisioning/hub/sessions"
)

// stopTimeout is how long requests may run on after the hub was asked to stop.
const stopTimeout = 5 * time.Second

// listener is one open socket and what answers on it.
type listener struct {
	name    string
	net     net.Listener
	handler http.Handler
}

// listen opens every socket before any is served, so that the hub is ready as a whole or not at all.
func (h *hub) listen() (list []listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range list {
				err = errors.Join(err, l.net.Close())
			}
		}
	}()
	open := func(name, network, address string, conf *tls.Config, handler http.Handler) error {
		n, err := net.Listen(network, address)
		if err != nil {
			return fmt.Errorf("open the %s listener: %w", name, err)
		}
		if conf != nil {
			n = tls.NewListener(n, conf)
		}
		list = append(list, listener{name, n, handler})
		return nil
	}
	c := h.config
	if c.Page.Listen != "" {
		conf, err := c.Page.tls()
		if err != nil {
			return list, fmt.Errorf("page: %w", err)
		}
		if err := open("page", "tcp", c.Page.Listen, conf, h.pageHandler()); err != nil {
			return list, err
		}
	}
	conf, err := c.People.tls()
	if err != nil {
		return list, fmt.Errorf("people: %w", err)
	}
	if err := open("people", "tcp", c.People.Listen, conf, h.peopleHandler()); err != nil {
		return list, err
	}
	if err := open("devices", "tcp", c.Devices.Listen, h.devicesTLS(), h.devicesHandler()); err != nil {
		return list, err
	}
	if c.Metrics.Listen != "off" {
		if err := open("metrics", "tcp", c.Metrics.Listen, nil, h.metricsHandler()); err != nil {
			return list, err
		}
	}
	return list, h.listenAdmin(open)
}

// listenAdmin opens the front desk's socket. A socket left by a crash is in the way; one that answers is another hub.
func (h *hub) listenAdmin(open func(name, network, address string, conf *tls.Config, handler http.Handler) error) error {
	path := h.config.Admin.Socket
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		return errors.Join(fmt.Errorf("another alcove-hub answers on %s", path), c.Close())
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != os.ModeSocket {
			return fmt.Errorf("%s is in the way of the admin socket", path)
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove the former admin socket: %w", err)
		}
	}
	// The folder is 0700 when it is the state folder; the mode below also holds elsewhere. Between the two calls the
	// socket has the umask's mode, so it is made narrow first.
	former := umask(0o177)
	err := open("admin", "unix", path, nil, h.adminHandler())
	umask(former)
	if err != nil {
		return err
	}
	return os.Chmod(path, 0o600)
}

func (w Web) tls() (*tls.Config, error) {
	if w.TLSCert == "" {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(w.TLSCert, w.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	// HTTP/1.1 alone: the relay and signalling are WebSockets, which HTTP/2 here would not carry.
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}, nil
}

// devicesTLS asks for a client certificate and lets handlers decide what its key may do: one that is enrolling is on
// no roster yet, and alcovectl has none. Without tickets each connection proves its key anew.
func (h *hub) devicesTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{h.cert}, NextProtos: []string{"http/1.1"},
		ClientAuth: tls.RequestClientCert, SessionTicketsDisabled: true,
	}
}

// devicesHandler is the listener for rooms and alcovectl.
func (h *hub) devicesHandler() http.Handler {
	mux := http.NewServeMux()
	h.fleet.Devices(mux)
	mux.HandleFunc("GET /v1/device/relay", func(w http.ResponseWriter, r *http.Request) {
		device, ok := h.fleet.Caller(r)
		if !ok {
			unknownDevice(w)
			return
		}
		key := r.TLS.PeerCertificates[0].RawSubjectPublicKeyInfo
		h.sessions.ServeRoom(w, r, device.Room, func() bool {
			d, ok := h.fleet.Device(key)
			return ok && d.Room == device.Room
		})
	})
	proxy := h.sfuHandler()
	mux.HandleFunc("/sfu/", func(w http.ResponseWriter, r *http.Request) {
		if _, ok := h.fleet.Caller(r); !ok {
			unknownDevice(w)
			return
		}
		proxy.ServeHTTP(w, r)
	})
	mux.HandleFunc("/", notFound)
	return apiHeaders(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// No page has business here; a browser on a room's network must not be lured into sending anything.
		if len(r.Header.Values("Origin")) > 0 {
			answer.Refuse(w, http.StatusForbidden, "origin", "This address is for rooms, not for browsers.")
			return
		}
		mux.ServeHTTP(w, r)
	}))
}

func unknownDevice(w http.ResponseWriter) {
	answer.Refuse(w, http.StatusForbidden, "unknown_device", "This device is not on the clinic's roster. IT must enrol it.")
}

// apiHeaders are the headers of every answer that is no page.
func apiHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		head.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		head.Set("Cross-Origin-Resource-Policy", "cross-origin") // read by the call page's origin, which CORS names
		commonHeaders(head, r)
		next.ServeHTTP(w, r)
	})
}

func commonHeaders(head http.Header, r *http.Request) {
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Referrer-Policy", "no-referrer")
	head.Set("Cache-Control", "no-store")
	if r.TLS != nil {
		head.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// serve answers on every listener until ctx ends.
func (h *hub) serve(ctx context.Context, list []listener) error {
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	failed := make(chan error, len(list))
	var servers []*http.Server
	for _, l := range list {
		s := &http.Server{
			Handler:           l.handler,
			ReadHeaderTimeout: 10 * time.Second,
			ReadTimeout:       0, // long polls and WebSockets; bodies are bounded
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    16 << 10,
			BaseContext:       func(net.Listener) context.Context { return base },
			ErrorLog:          slog.NewLogLogger(quiet{h.log.Handler()}, slog.LevelDebug),
			Protocols:         onlyHTTP1(),
		}
		servers = append(servers, s)
		go func() {
			if err := s.Serve(l.net); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serve %s: %w", l.name, err)
			}
		}()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	cut() // ends long polls and proxied WebSockets
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	for _, s := range servers {
		if s.Shutdown(stop) != nil {
			_ = s.Close() // it had its time
		}
	}
	return err
}

func onlyHTTP1() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}

// quiet keeps addresses out of the log: net/http's messages hold them.
type quiet struct{ slog.Handler }

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	return q.Handler.Handle(ctx, slog.NewRecord(r.Time, r.Level, "a connection failed", r.PC))
}

// limits of addresses. A clinic's people may all come from one.
func newLimits(h *hub) {
	h.joinLimit = sessions.NewAddressLimit(2*time.Second, 30)
	h.trustLimit = sessions.NewAddressLimit(time.Second, 60)
	h.sfuLimit = sessions.NewAddressLimit(time.Second, 120)
}
