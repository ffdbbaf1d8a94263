// Package daemon wires the room's daemon together: Config says where things are, Run starts them, and
// pipeline.go shows the whole way of a picture and a sound out of the room.
//
// Everything that holds a key or a decision is a package of its own below this one. This package decides
// only who is connected to whom; layers_test.go is the law about that.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/tink-crypto/tink-go/v2/signature/ed25519"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"

	"github.com/alcove-room/alcove/daemon/audit"
	"github.com/alcove-room/alcove/daemon/durable"
	"github.com/alcove-room/alcove/daemon/keystore"
	"github.com/alcove-room/alcove/daemon/session"
	"github.com/alcove-room/alcove/provisioning"
	"github.com/alcove-room/alcove/provisioning/document"
	"github.com/alcove-room/alcove/systemd"
)

// Options is what a program that runs a room brings along.
type Options struct {
	Version string
	Stderr  io.Writer // of the log
	// Sink takes what arrives from the people in a session, decrypted. Nil: it is counted and dropped.
	Sink session.Sink
	// Clock is the time that sessions keep; nil is the machine's.
	Clock session.Clock
}

// Run runs the room until ctx ends.
func Run(ctx context.Context, conf Config, opt Options) error {
	level, err := conf.level()
	if err != nil {
		return err
	}
	if err := forbidDumps(); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(opt.Stderr, &slog.HandlerOptions{Level: level, ReplaceAttr: withoutAddresses}))
	if opt.Sink == nil {
		opt.Sink = discard{}
	}
	if err := durable.MkdirAll(conf.StateDir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if err := os.MkdirAll(conf.RunDir, 0o755); err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	keys, err := keystore.Open(filepath.Join(conf.StateDir, "keys"), log)
	if err != nil {
		return err
	}
	ledger, err := openAudit(conf, keys, log)
	if err != nil {
		return err
	}
	defer ledger.log.Close()
	store, err := provisioning.OpenStore(conf.StateDir, keys.TLSSPKI(), time.Now())
	if err != nil {
		return err
	}

	registry := prometheus.NewRegistry()
	sessions, media := session.NewMetrics(), newPipelineMetrics()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo(opt.Version))
	registry.MustRegister(sessions.Metrics()...)
	registry.MustRegister(media.collectors()...)
	registry.MustRegister(ledger.log.Metrics()...)

	box := &box{conf: conf, log: log, keys: keys, store: store, ledger: ledger, sessions: sessions, media: media, sink: opt.Sink, clock: opt.Clock}
	control, err := listenControl(conf.ControlSocket(), conf.ControlUser)
	if err != nil {
		return err
	}
	defer os.Remove(conf.ControlSocket())
	notify := systemd.New(log)
	g, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() {
		if err := notify.Stopping(); err != nil {
			log.Warn("service manager", "err", err)
		}
	})()
	g.Go(func() error { return serveControl(ctx, control, controlHandler(box.touch)) })
	g.Go(func() error { return serveMetrics(ctx, *conf.Metrics, registry) })
	g.Go(func() error { return box.run(ctx) })
	if err := notify.Ready(); err != nil {
		log.Warn("service manager", "err", err)
	}
	log.Info("room daemon runs", "version", opt.Version, "control", conf.ControlSocket(), "key_protection", keys.Inventory().Protection)
	err = g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func openAudit(conf Config, keys *keystore.Keystore, log *slog.Logger) (ledger, error) {
	parameters, err := ed25519.NewParameters(ed25519.VariantNoPrefix)
	if err != nil {
		return ledger{}, fmt.Errorf("audit key: %w", err)
	}
	handle, err := keys.Keyset("audit", &parameters)
	if err != nil {
		return ledger{}, err
	}
	// The origin names the box without saying anything about it: the hash of its public key.
	signer, verifierKey, err := audit.NewSigner("alcove/"+document.SPKIHash(keys.SignSPKI()).String()[:16], handle)
	if err != nil {
		return ledger{}, err
	}
	verifier, err := note.NewVerifier(verifierKey)
	if err != nil {
		return ledger{}, fmt.Errorf("audit key: %w", err)
	}
	l, err := audit.Open(audit.Config{Dir: filepath.Join(conf.StateDir, "audit"), Signer: signer, Verify: verifier, Now: time.Now, Log: log})
	if err != nil {
		return ledger{}, err
	}
	log.Info("audit log", "verifier_key", verifierKey)
	return ledger{log: l, out: log}, nil
}

// withoutAddresses takes network addresses out of what is logged, errors of the network first of all: they would tell
// where people are (promise 8 of the design: no log line carries an address).
func withoutAddresses(groups []string, a slog.Attr) slog.Attr {
	switch v := a.Value.Any().(type) {
	case error:
		a.Value = slog.StringValue(redact(v.Error()))
	case string:
		if a.Key != slog.MessageKey {
			a.Value = slog.StringValue(redact(v))
		}
	}
	return a
}

func redact(text string) string { return addresses.ReplaceAllString(text, "$1[address]") }

// addresses finds URLs, IP addresses with or without a port, and what the resolver and the dialler put into their errors.
var addresses = regexp.MustCompile(`(\b(?:lookup|dial tcp[46]?|dial udp[46]?) )\S+|\b[a-z][a-z0-9+.-]*://[^\s"']+|` +
	`\[[0-9a-fA-F:.]*:[0-9a-zA-Z:.%]*\](?::\d+)?|\b(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?\b`)

func buildInfo(version string) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "alcove_build_info", Help: "1, with the version of this build.",
		ConstLabels: prometheus.Labels{"version": version}})
	g.Set(1)
	return g
}

// serveMetrics serves the registry on addr until ctx ends; an empty addr serves nothing.
func serveMetrics(ctx context.Context, addr string, registry *prometheus.Registry) error {
	if addr == "" {
		return nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry}))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}
