// Package browser drives a real Chromium for tests and measurements.
package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
)

// Options is what differs between browsers.
type Options struct {
	// Video and Audio are files that Chromium plays as camera and microphone (Y4M or MJPEG; WAV); empty: its
	// own moving picture and beep.
	Video, Audio string
	// Flags are further command-line switches, without dashes.
	Flags map[string]any
}

// Browser is one running Chromium.
type Browser struct {
	ctx    context.Context
	cancel func()
	dir    string
}

// Start starts a browser with a new profile.
func Start(ctx context.Context, opt Options) (*Browser, error) {
	dir, err := os.MkdirTemp("", "alcove-chromium-")
	if err != nil {
		return nil, err
	}
	flags := []chromedp.ExecAllocatorOption{
		chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.NoSandbox, chromedp.UserDataDir(dir),
		chromedp.Flag("headless", "new"), chromedp.DisableGPU, chromedp.WindowSize(1280, 800),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-quic", true), chromedp.Flag("mute-audio", false),
		chromedp.Flag("disable-features", "Translate,MediaRouter,OptimizationHints"),
		chromedp.Flag("use-fake-device-for-media-stream", true), chromedp.Flag("use-fake-ui-for-media-stream", true),
		chromedp.Flag("autoplay-policy", "no-user-gesture-required"),
		// A page in the background must not be slowed down: a test has several.
		chromedp.Flag("disable-background-timer-throttling", true), chromedp.Flag("disable-renderer-backgrounding", true),
		chromedp.Flag("disable-backgrounding-occluded-windows", true),
		chromedp.WSURLReadTimeout(60 * time.Second),
	}
	if path := os.Getenv("CHROMIUM"); path != "" {
		flags = append(flags, chromedp.ExecPath(path))
	} else {
		flags = append(flags, chromedp.ExecPath("/usr/bin/chromium"))
	}
	if opt.Video != "" {
		flags = append(flags, chromedp.Flag("use-file-for-fake-video-capture", opt.Video))
	}
	if opt.Audio != "" {
		flags = append(flags, chromedp.Flag("use-file-for-fake-audio-capture", opt.Audio))
	}
	for k, v := range opt.Flags {
		flags = append(flags, chromedp.Flag(k, v))
	}
	alloc, cancelAlloc := chromedp.NewExecAllocator(ctx, flags...)
	bctx, cancelCtx := chromedp.NewContext(alloc)
	b := &Browser{ctx: bctx, dir: dir, cancel: func() { cancelCtx(); cancelAlloc(); os.RemoveAll(dir) }}
	if err := chromedp.Run(bctx); err != nil {
		b.cancel()
		return nil, fmt.Errorf("start Chromium: %w", err)
	}
	return b, nil
}

// Close ends the browser.
func (b *Browser) Close() { b.cancel() }

// Page is one tab.
type Page struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu   sync.Mutex
	said []string // console and exceptions
}

// Open opens url in a new tab. Scripts run before any of the page's.
func (b *Browser) Open(url string, scripts ...string) (*Page, error) {
	// A window of its own: a page in a tab behind another is hidden, and a browser paints no pictures there.
	var id target.ID
	err := chromedp.Run(b.ctx, chromedp.ActionFunc(func(ctx context.Context) (err error) {
		c := chromedp.FromContext(ctx)
		id, err = target.CreateTarget("about:blank").WithNewWindow(true).Do(cdp.WithExecutor(ctx, c.Browser))
		return err
	}))
	if err != nil {
		return nil, fmt.Errorf("open window: %w", err)
	}
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithTargetID(id))
	p := &Page{ctx: ctx, cancel: cancel}
	chromedp.ListenTarget(ctx, p.listen)
	actions := []chromedp.Action{chromedp.ActionFunc(func(ctx context.Context) error {
		for _, s := range scripts {
			if _, err := page.AddScriptToEvaluateOnNewDocument(s).Do(ctx); err != nil {
				return err
			}
		}
		return nil
	}), chromedp.Navigate(url)}
	if err := chromedp.Run(ctx, actions...); err != nil {
		cancel()
		return nil, fmt.Errorf("open page: %w", err)
	}
	return p, nil
}

func (p *Page) listen(ev any) {
	var line string
	switch ev := ev.(type) {
	case *page.EventJavascriptDialogOpening:
		// "Leave this page?" is answered with yes. From a goroutine: an answer waits for the next event.
		go func() { _ = chromedp.Run(p.ctx, page.HandleJavaScriptDialog(true)) }()
		return
	case *runtime.EventConsoleAPICalled:
		var parts []string
		for _, a := range ev.Args {
			s := string(a.Value)
			if s == "" {
				s = a.Description
			}
			parts = append(parts, s)
		}
		line = ev.Type.String() + ": " + strings.Join(parts, " ")
	case *runtime.EventExceptionThrown:
		line = "exception: " + ev.ExceptionDetails.Error()
	default:
		return
	}
	p.mu.Lock()
	p.said = append(p.said, line)
	p.mu.Unlock()
}

// Said returns what the page wrote to its console so far.
func (p *Page) Said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.said, "\n")
}

// Close closes the tab.
func (p *Page) Close() { p.cancel() }

// Eval evaluates an expression, waiting for it if it is a promise, and decodes the value into out.
func (p *Page) Eval(expr string, out any) error {
	ctx, cancel := context.WithTimeout(p.ctx, 60*time.Second)
	defer cancel()
	var raw json.RawMessage
	err := chromedp.Run(ctx, chromedp.Evaluate("Promise.resolve("+expr+").then(v => JSON.stringify(v === undefined ? null : v))",
		&raw, func(q *runtime.EvaluateParams) *runtime.EvaluateParams { return q.WithAwaitPromise(true) }))
	if err != nil {
		return fmt.Errorf("evaluate %.60s: %w", expr, err)
	}
	if out == nil {
		return nil
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return fmt.Errorf("evaluate %.60s: %w", expr, err)
	}
	return json.Unmarshal([]byte(text), out)
}

// Await evaluates an expression until it is true.
func (p *Page) Await(limit time.Duration, expr string) error {
	deadline := time.Now().Add(limit)
	for {
		var ok bool
		err := p.Eval("!!("+expr+")", &ok)
		if err == nil && ok {
			return nil
		}
		if time.Now().After(deadline) {
			var text string
			_ = p.Eval("document.body.innerText", &text) // only for the message
			return fmt.Errorf("%s did not become true in %v (%v); the page says:\n%s\n%s", expr, limit, err, text, p.Said())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Click clicks the first element that the CSS selector finds, waiting for it.
func (p *Page) Click(selector string) error {
	ctx, cancel := context.WithTimeout(p.ctx, 20*time.Second)
	defer cancel()
	if err := chromedp.Run(ctx, chromedp.Click(selector, chromedp.ByQuery, chromedp.NodeVisible)); err != nil {
		return fmt.Errorf("click %s: %w\n%s", selector, err, p.Said())
	}
	return nil
}

// Reload loads the page again, as a person would.
func (p *Page) Reload() error { return chromedp.Run(p.ctx, chromedp.Reload()) }

// Screenshot writes a PNG of what is visible.
func (p *Page) Screenshot(path string) error {
	var png []byte
	if err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot(&png)); err != nil {
		return err
	}
	return os.WriteFile(path, png, 0o644)
}

// Context is the tab's, for actions of chromedp itself.
func (p *Page) Context() context.Context { return p.ctx }
