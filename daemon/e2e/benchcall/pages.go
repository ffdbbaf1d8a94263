package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/alcove-room/alcove/provisioning/web"
)

// pages serves the measuring pages on an origin of their own, and there the call page as it is built, too.
type pages struct {
	Origin string
	dir    string
	server *http.Server
}

const receiverHTML = `<!doctype html><html lang="en"><meta charset="utf-8"><title>receiver</title>
<div class="tile"><video autoplay playsinline width="640" height="360"></video><audio autoplay></audio></div>
<script type="module" src="receiver.js"></script></html>`

const rivalHTML = `<!doctype html><html lang="en"><meta charset="utf-8"><title>rival</title>
<canvas width="640" height="360"></canvas><script type="module" src="rival.js"></script></html>`

// servePages builds the measuring pages with the web package's own tools and serves them.
func servePages(ctx context.Context, root string) (*pages, error) {
	dir, err := os.MkdirTemp("", "alcove-bench-pages-")
	if err != nil {
		return nil, err
	}
	p := &pages{dir: dir}
	if err := p.build(ctx, root); err != nil {
		p.Close()
		return nil, err
	}
	call, err := web.Call()
	if err != nil {
		p.Close()
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.Close()
		return nil, err
	}
	p.Origin = fmt.Sprintf("http://localhost:%d", l.Addr().(*net.TCPAddr).Port)
	mux := http.NewServeMux()
	mux.Handle("/bench/", http.StripPrefix("/bench/", http.FileServer(http.Dir(dir))))
	mux.Handle("/", http.FileServerFS(call))
	p.server = &http.Server{Handler: headers(mux)}
	go func() {
		if err := p.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(os.Stderr, "benchcall: pages:", err)
		}
	}()
	return p, nil
}

// headers are those of the call page; its hub and LiveKit stand on loopback.
func headers(next http.Handler) http.Handler {
	all := web.Header([]string{"http://localhost:*", "ws://localhost:*", "http://127.0.0.1:*", "ws://127.0.0.1:*"})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, values := range all {
			// The rival is livekit-client as it comes, which starts its worker by an address that no policy has seen.
			if name == "Content-Security-Policy" && r.URL.Path == "/bench/rival.html" {
				continue
			}
			w.Header()[name] = values
		}
		next.ServeHTTP(w, r)
	})
}

func (p *pages) build(ctx context.Context, root string) error {
	modules := filepath.Join(root, "provisioning", "web", "node_modules")
	cmd := exec.CommandContext(ctx, filepath.Join(modules, ".bin", "esbuild"),
		filepath.Join(root, "daemon/e2e/benchcall/page/receiver.ts"), filepath.Join(root, "daemon/e2e/benchcall/page/rival.ts"),
		"--bundle", "--minify", "--format=esm", "--target=es2022", "--log-level=warning", "--outdir="+p.dir,
		`--define:__ASSETS__={"worker":{"file":"worker.js","integrity":""},"font":{"file":"","integrity":""}}`)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the measuring pages: %w\n%s", err, out)
	}
	worker, err := os.ReadFile(filepath.Join(modules, "livekit-client", "dist", "livekit-client.e2ee.worker.js"))
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{
		"worker.js": worker, "receiver.html": []byte(receiverHTML), "rival.html": []byte(rivalHTML),
	} {
		if err := os.WriteFile(filepath.Join(p.dir, name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (p *pages) url(name, fragment string) string {
	return p.Origin + "/bench/" + name + "#" + fragment
}

// Close stops serving and removes what was built.
func (p *pages) Close() {
	if p.server != nil {
		p.server.Close()
	}
	os.RemoveAll(p.dir)
}
