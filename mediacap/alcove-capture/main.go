// alcove-capture captures a camera and a microphone, encodes them, and hands the encoded units to alcoved
// over a connected Unix stream socket. It has devices and C code, but no keys, no network and no files: it
// speaks to nobody but the process at the other end of its socket, and that process counts it as hostile.
//
// Exit status: 0 when it was asked to stop or the socket closed, 1 when a device or the socket failed (the
// reason is sent as the last status and logged), 2 for wrong arguments.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alcove-room/alcove/mediacap"
	"github.com/alcove-room/alcove/mediacap/capturetest"
	"github.com/alcove-room/alcove/mediacap/device"
	"github.com/alcove-room/alcove/mediacap/encode"
	"github.com/alcove-room/alcove/mediacap/pump"
)

const usage = `alcove-capture captures a camera and a microphone for alcoved.

alcoved starts it with a connected Unix stream socket and reads encoded units from there.
It ends when alcoved says stop or closes the socket.

  alcove-capture                                    camera and microphone, socket at descriptor 3
  alcove-capture --source=test                      a moving picture that says TEST, and a voice-like sound
  alcove-capture --socket /run/alcove/capture.sock  connect to a listening socket instead
  alcove-capture --size 1280x720 --fps 30 --video-bitrate 1500000 --codec h264

Options:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

type options struct {
	source    string
	codec     string
	node      string
	size      string
	fps       float64
	videoRate int
	audioRate int
	socketFD  int
	socket    string

	width, height int
}

// parse returns flag.ErrHelp after it printed the help to out.
func parse(args []string, out io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("alcove-capture", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.source, "source", "camera", "`camera` for the camera and the microphone, or test")
	f.StringVar(&o.codec, "codec", "auto", "of the picture: `vp8`, h264 (by the GPU if it works, else in software), or auto: h264 if the GPU works, else vp8")
	f.StringVar(&o.node, "render-node", "", "GPU to use, such as `/dev/dri/renderD128`; every one of the machine if not given")
	f.StringVar(&o.size, "size", "640x360", "picture in pixels, `WIDTHxHEIGHT`")
	f.Float64Var(&o.fps, "fps", 15, "pictures per second")
	f.IntVar(&o.videoRate, "video-bitrate", 600_000, "of the picture, in `bit/s`; the daemon changes it while it runs")
	f.IntVar(&o.audioRate, "audio-bitrate", encode.OpusBitRate, "of the sound, in `bit/s`")
	f.IntVar(&o.socketFD, "socket-fd", 3, "`descriptor` of the connected socket")
	f.StringVar(&o.socket, "socket", "", "`path` of a listening socket to connect to instead")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(out, usage)
			f.SetOutput(out)
			f.PrintDefaults()
		}
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	return o, o.check()
}

func (o *options) check() error {
	var rest string
	if n, _ := fmt.Sscanf(o.size+" .", "%dx%d %s", &o.width, &o.height, &rest); n != 3 || rest != "." ||
		o.width < mediacap.MinSide || o.width > mediacap.MaxSide || o.height < mediacap.MinSide || o.height > mediacap.MaxSide {
		return fmt.Errorf("--size %q: give it as 640x360, each side %d to %d", o.size, mediacap.MinSide, mediacap.MaxSide)
	}
	switch {
	case o.source != "camera" && o.source != "test":
		return fmt.Errorf("--source %q: camera and test are possible", o.source)
	case o.codec != "auto" && o.codec != mediacap.VP8.String() && o.codec != mediacap.H264.String():
		return fmt.Errorf("--codec %q: vp8, h264 and auto are possible", o.codec)
	case !(o.fps >= 1 && o.fps <= 60):
		return fmt.Errorf("--fps %v: 1 to 60 are possible", o.fps)
	case o.videoRate < mediacap.MinVideoRate || o.videoRate > mediacap.MaxVideoRate:
		return fmt.Errorf("--video-bitrate %d: %d to %d are possible", o.videoRate, mediacap.MinVideoRate, mediacap.MaxVideoRate)
	case o.audioRate < mediacap.MinAudioRate || o.audioRate > mediacap.MaxAudioRate:
		return fmt.Errorf("--audio-bitrate %d: %d to %d are possible", o.audioRate, mediacap.MinAudioRate, mediacap.MaxAudioRate)
	}
	return nil
}

func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	log := slog.New(slog.NewTextHandler(errOut, nil))
	o, err := parse(args, out)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(errOut, "alcove-capture: %v\nalcove-capture --help shows what is possible.\n", err)
		return 2
	}
	conn, err := o.connect()
	if err != nil {
		log.Error("no socket to the daemon", "err", err)
		return 1
	}
	cfg := pump.Config{Build: build(), Synthetic: o.source == "test", Width: o.width, Height: o.height,
		FrameRate: float32(o.fps), VideoRate: o.videoRate, AudioRate: o.audioRate, Log: log}
	cfg.Codec, cfg.Backends = o.encoders(log)
	if cfg.Camera, cfg.Microphone, err = o.devices(); err != nil {
		log.Error("no devices", "err", err)
		pump.Refuse(conn, cfg, err)
		return 1
	}
	if err := pump.Run(ctx, conn, cfg); err != nil {
		log.Error("capture ended", "err", err)
		return 1
	}
	return 0
}

// encoders chooses the picture's codec and the ways to encode it.
func (o *options) encoders(log *slog.Logger) (mediacap.Codec, []encode.Backend) {
	switch o.codec {
	case mediacap.VP8.String():
		return mediacap.VP8, nil
	case mediacap.H264.String():
		return mediacap.H264, encode.Backends(mediacap.H264, o.node)
	}
	f := encode.Format{Width: o.width &^ 1, Height: o.height &^ 1, FrameRate: o.fps, BitRate: o.videoRate}
	codec, backends, failed := encode.Auto(o.node, f)
	log.Info("codec chosen", "codec", codec, "failed", failed)
	return codec, backends
}

// devices registers or finds the devices and leaves mediadevices no other ones.
func (o *options) devices() (camera, microphone pump.Device, err error) {
	if o.source == "test" {
		device.Keep()
		d, err := capturetest.Register(o.width, o.height, float32(o.fps))
		return pump.Device{ID: d.Camera, Name: capturetest.CameraName},
			pump.Device{ID: d.Microphone, Name: capturetest.MicrophoneName}, err
	}
	c, cameraErr := device.Camera()
	m, microphoneErr := device.Microphone()
	device.Keep(c.ID, m.ID)
	return pump.Device(c), pump.Device(m), errors.Join(cameraErr, microphoneErr)
}

// connect returns the socket to the daemon, which must be a Unix stream socket.
func (o *options) connect() (pump.Conn, error) {
	if o.socket != "" {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: o.socket, Net: "unix"})
		if err != nil {
			return nil, fmt.Errorf("connect to the daemon: %w", err)
		}
		return short(conn)
	}
	file := os.NewFile(uintptr(o.socketFD), "capture socket")
	if file == nil {
		return nil, fmt.Errorf("descriptor %d is none", o.socketFD)
	}
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d is no connected socket (alcoved passes one; --socket connects to a path): %w", o.socketFD, err)
	}
	unix, ok := conn.(*net.UnixConn)
	if !ok || unix.LocalAddr().Network() != "unix" { // "unixpacket" refuses large key frames
		conn.Close()
		return nil, fmt.Errorf("descriptor %d is no Unix stream socket", o.socketFD)
	}
	return short(unix)
}

// sendBuffer is small, because what waits in it can no longer be overtaken by sound.
const sendBuffer = 64 << 10

func short(conn *net.UnixConn) (pump.Conn, error) {
	if err := conn.SetWriteBuffer(sendBuffer); err != nil {
		conn.Close()
		return nil, fmt.Errorf("set the socket's buffer: %w", err)
	}
	return conn, nil
}

func build() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return strings.Trim(info.Main.Version, "()")
}
