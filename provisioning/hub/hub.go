// Package hub is the clinic's server: it keeps appointments, lets people wait and rooms admit them, relays the key
// agreement, hands out LiveKit tokens, and stores the clinic's signed documents. PROTOCOL.md beside this file is its
// contract with pages, rooms and IT.
//
// The hub is not trusted with media. It holds no key that opens any, it cannot add a member to a session (rooms and
// pages check signatures), and it makes no document. What it can do is refuse service, and see who talks when.
//
// Its parts: sessions (appointments, lobby, relay, tokens), fleet (documents, enrolment), sfu (the LiveKit child),
// store (SQLite), people (who may do what, sign-in). This package gives each its values, opens the listeners and waits.
package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/alcove-room/alcove/provisioning/document"
	"github.com/alcove-room/alcove/provisioning/hub/fleet"
	"github.com/alcove-room/alcove/provisioning/hub/people"
	"github.com/alcove-room/alcove/provisioning/hub/sessions"
	"github.com/alcove-room/alcove/provisioning/hub/sfu"
	"github.com/alcove-room/alcove/provisioning/hub/store"
)

// Options are what Run needs beside the configuration; every field is needed.
type Options struct {
	Log *slog.Logger
	// Page is served on the page listener.
	Page Page
	// SFU is the program and arguments that end up in sfu.Child.
	SFU []string
	// Version stands in a metric.
	Version string
	// Ready is called once, when every listener is open and the media server answers.
	Ready func()
}

// hub is one running hub.
type hub struct {
	config   Config
	log      *slog.Logger
	page     Page
	cert     tls.Certificate
	fleet    *fleet.Fleet
	sessions *sessions.Service
	people   *people.Service
	proxy    http.Handler // nil with an external LiveKit
	registry *prometheus.Registry
	joins    *prometheus.CounterVec

	joinLimit, trustLimit, sfuLimit *sessions.AddressLimit
}

// databaseFile lies in the state folder.
const databaseFile = "hub.sqlite"

// Run serves until ctx ends or something essential fails.
func Run(ctx context.Context, c Config, o Options) (err error) {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if c.Page.Listen != "" && (o.Page.Files == nil || o.Page.Header == nil) {
		return errors.New("page.listen is set but this program holds no page")
	}
	cert, pin, err := LoadKey(c.State)
	if err != nil {
		return err
	}
	db, err := store.Open(ctx, filepath.Join(c.State, databaseFile))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	h := &hub{config: c, log: o.Log, page: o.Page, cert: cert, registry: prometheus.NewRegistry()}
	newLimits(h)
	if h.fleet, err = newFleet(ctx, c, db, pin, o.Log); err != nil {
		return err
	}
	if err := h.fleet.Ready(); err != nil {
		return err
	}
	media, child, err := h.mediaServer(o)
	if err != nil {
		return err
	}
	defer media.client.Close()
	metrics := sessions.NewMetrics()
	h.joins = metrics.Joins()
	h.sessions, err = sessions.New(ctx, sessions.Options{
		Store: db, Media: media.client, Directory: h.fleet, Log: o.Log, Metrics: metrics,
		CallOrigin: c.CallOrigin, PeopleURL: c.People.URL,
		PageMediaURL: media.pages, RoomMediaURL: media.rooms,
		Early: c.Sessions.Early, Overrun: c.Sessions.Overrun,
		Limits: sessions.DefaultLimits(),
		Relays: sessions.NewAddressLimit(time.Second, 60),
	})
	if err != nil {
		return err
	}
	h.people, err = people.New(people.Options{
		Store: db, Log: o.Log, CallOrigin: c.CallOrigin, ConsoleOrigin: c.ConsoleOrigin,
		OIDC:      people.OIDC(c.OIDC),
		Addresses: sessions.NewAddressLimit(2*time.Second, 60), Address: sessions.AddressOf,
	})
	if err != nil {
		return err
	}
	h.fleet.Watch(h.sessions.Recheck)
	h.register(o.Version, metrics.Metrics(), h.fleet.Metrics(), h.people.Metrics())
	if child != nil {
		h.register("", child.supervisor.Metrics())
	}
	return h.run(ctx, o, child)
}

func newFleet(ctx context.Context, c Config, db *store.Store, pin document.Hash, log *slog.Logger) (*fleet.Fleet, error) {
	return fleet.New(ctx, fleet.Options{
		Store: db, Log: log, Pin: pin, Loopback: c.Loopback(),
		Enrolments: sessions.NewAddressLimit(5*time.Second, 20),
		Uploads:    sessions.NewAddressLimit(time.Second, 30),
	})
}

// Trust stores the clinic's first owner root in the hub's state; alcove-hub trust calls it before the first start.
// It returns the clinic: the hash of that root's payload.
func Trust(ctx context.Context, c Config, envelope []byte, log *slog.Logger) (clinic document.Hash, err error) {
	_, pin, err := LoadKey(c.State)
	if err != nil {
		return clinic, err
	}
	db, err := store.Open(ctx, filepath.Join(c.State, databaseFile))
	if err != nil {
		return clinic, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	f, err := newFleet(ctx, c, db, pin, log)
	if err != nil {
		return clinic, err
	}
	return f.Trust(ctx, envelope)
}

// media is where LiveKit is, for the hub and for its clients.
type media struct {
	client       *sfu.Client
	pages, rooms string
}

// child is a media server of our own.
type child struct {
	supervisor *sfu.Supervisor
	first      chan struct{} // closed when it answers for the first time
}

// mediaServer decides between an external LiveKit and a child; what follows is the same for both.
func (h *hub) mediaServer(o Options) (media, *child, error) {
	l := h.config.LiveKit
	if l.URL != "" {
		u, err := url.Parse(l.URL)
		if err != nil {
			return media{}, nil, fmt.Errorf("livekit.url: %w", err)
		}
		ws := websocketURL(l.URL)
		return media{sfu.NewClient(u, l.Key, l.Secret), ws, ws}, nil, nil
	}
	ip, err := netip.ParseAddr(l.NodeIP)
	if err != nil {
		return media{}, nil, fmt.Errorf("livekit.node_ip: %w", err)
	}
	conf := sfu.NewConfig(ip, l.SignalPort, l.UDPPort, l.TCPPort)
	c := &child{first: make(chan struct{})}
	var once sync.Once
	c.supervisor, err = sfu.NewSupervisor(conf, o.SFU, h.log, func() {
		once.Do(func() { close(c.first) })
		h.sessions.Sweep() // makes the rooms of open sessions again, so that everybody can come back at once
	})
	if err != nil {
		return media{}, nil, err
	}
	h.proxy = sfu.NewProxy(l.SignalPort)
	base := &url.URL{Scheme: "http", Host: "127.0.0.1:" + strconv.Itoa(l.SignalPort)}
	return media{
		client: sfu.NewClient(base, conf.Key, conf.Secret),
		pages:  websocketURL(h.config.People.URL) + "/sfu",
		rooms:  websocketURL(h.config.Devices.URL) + "/sfu",
	}, c, nil
}

// run starts the parts and waits for the first to fail, or for ctx; then it stops all, media server last.
func (h *hub) run(ctx context.Context, o Options, c *child) error {
	list, err := h.listen()
	if err != nil {
		return err
	}
	front, stopFront := context.WithCancel(ctx)
	defer stopFront()
	back, stopBack := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBack()
	errs := make(chan error, 4)
	var behind sync.WaitGroup
	if c != nil {
		behind.Go(func() { errs <- c.supervisor.Run(back) })
		select {
		case <-c.first:
		case <-front.Done():
		}
	}
	var parts sync.WaitGroup
	parts.Go(func() { errs <- h.sessions.Run(front) })
	parts.Go(func() { errs <- h.people.Run(front) })
	parts.Go(func() { errs <- h.serve(front, list) })
	if front.Err() == nil {
		h.log.Info("the hub is ready")
		o.Ready()
	}
	select {
	case <-front.Done():
	case err = <-errs:
	}
	stopFront()
	parts.Wait()
	stopBack()
	behind.Wait()
	return err
}

func (h *hub) register(version string, groups ...[]prometheus.Collector) {
	for _, g := range groups {
		h.registry.MustRegister(g...)
	}
	if version != "" {
		info := prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "alcove_hub_build_info", Help: "Version of the running hub.", ConstLabels: prometheus.Labels{"version": version}})
		info.Set(1)
		h.registry.MustRegister(info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
}

func (h *hub) metricsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(h.registry, promhttp.HandlerOpts{Registry: h.registry, EnableOpenMetrics: true}))
	return apiHeaders(mux)
}
