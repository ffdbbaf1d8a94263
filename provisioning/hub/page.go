package hub

import (
	"io/fs"
	"net/http"
	"strings"
)

// Page is the call page: a static bundle and the policy under which a browser may run it.
type Page struct {
	// Files of the bundle; index.html is the page.
	Files fs.FS
	// Header returns what every answer must carry: among it the Content-Security-Policy that lets the page connect to
	// these addresses and nowhere else.
	Header func(connect []string) http.Header
}

// pageHandler serves the bundle as any static host could.
func (h *hub) pageHandler() http.Handler {
	files := http.FileServerFS(h.page.Files)
	strict := h.page.Header(h.connects())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		commonHeaders(head, r)
		for name, values := range strict {
			head[name] = values
		}
		head.Set("Cache-Control", "no-cache")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			head.Set("Allow", "GET, HEAD")
			http.Error(w, "only GET", http.StatusMethodNotAllowed)
			return
		}
		if strings.HasSuffix(r.URL.Path, "/") && r.URL.Path != "/" { // no listing of folders
			http.NotFound(w, r)
			return
		}
		files.ServeHTTP(w, r)
	})
}

// connects lists where the page may connect to: the hub's API, the relay and the media server's signalling.
func (h *hub) connects() []string {
	list := []string{h.config.People.URL, websocketURL(h.config.People.URL)}
	if u := h.config.LiveKit.URL; u != "" {
		ws := websocketURL(u)
		list = append(list, strings.Replace(ws, "ws", "http", 1), ws)
	}
	return list
}

// websocketURL turns http into ws and https into wss.
func websocketURL(u string) string {
	if strings.HasPrefix(u, "http") {
		return "ws" + strings.TrimPrefix(u, "http")
	}
	return u
}
