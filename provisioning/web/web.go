// Package web holds the pages for browsers as a file system, and the HTTP headers that they have to be served with.
//
// The call page is static: any host can serve it, on an origin of its own, and it reaches a hub only as an API. What
// the page promises rests on its bytes, so they are one bundle with one hash, and call.sha256 in this folder is the
// hash of the released one. index.html is the only file that a browser takes as it comes; it binds script and style by
// their hashes, and the script binds worker and font. A server that serves another index.html serves another page: that
// limit is stated in the threat model, and the bundle hash is what rooms and people compare against.
//
// The pages are built by npm into dist, which is not in the repository; an empty dist compiles.
package web

import (
	"embed"
	"errors"
	"io/fs"
	"net/http"
	"strings"
)

//go:embed all:dist
var dist embed.FS

// ErrNotBuilt says that this program was built without its pages.
var ErrNotBuilt = errors.New("the call page is not built into this program: run `make web`, then build again")

// Call is the call page: index.html, the files that it names, manifest.json (SHA-256 of every file and of the bundle)
// and NOTICE.txt. The error is ErrNotBuilt when dist was empty.
func Call() (fs.FS, error) {
	if _, err := fs.Stat(dist, "dist/call/index.html"); err != nil {
		return nil, ErrNotBuilt
	}
	return fs.Sub(dist, "dist/call")
}

// TrustedTypesPolicy is the only policy by which the page turns a string into a script's address: the worker's.
const TrustedTypesPolicy = "alcove"

// CSP is the Content-Security-Policy of the call page. connect are the origins that the page may reach besides its own:
// the hub's listener for people and LiveKit's signal address, as https and wss (on loopback http and ws) origins.
//
// No inline script or style, nothing from other hosts, no frame around it, no form; strings become code nowhere
// (Trusted Types), and the worker's address only through one policy that knows one address.
func CSP(connect []string) string {
	return strings.Join([]string{
		"default-src 'none'",
		"script-src 'self'",
		"style-src 'self'",
		"img-src 'self' data: blob:",
		"media-src 'self' blob:",
		"font-src 'self'",
		"worker-src 'self'",
		"connect-src " + strings.Join(append([]string{"'self'"}, connect...), " "),
		"require-trusted-types-for 'script'",
		"trusted-types " + TrustedTypesPolicy,
		"base-uri 'none'",
		"form-action 'none'",
		"frame-ancestors 'none'",
	}, "; ")
}

// Header is everything that the call page has to be served with, to be set on every answer. A host that serves the page
// without them serves the same bytes with fewer walls around them.
func Header(connect []string) http.Header {
	return http.Header{
		"Content-Security-Policy":      {CSP(connect)},
		"Cross-Origin-Opener-Policy":   {"same-origin"},
		"Cross-Origin-Embedder-Policy": {"require-corp"},
		"Cross-Origin-Resource-Policy": {"same-origin"},
		"Permissions-Policy":           {"camera=(self), microphone=(self), display-capture=(), geolocation=(), autoplay=(self)"},
		"Referrer-Policy":              {"no-referrer"},
		"X-Content-Type-Options":       {"nosniff"},
	}
}
