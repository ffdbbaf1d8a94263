package sfu

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/livekit/livekit-server/pkg/config"
	"github.com/livekit/livekit-server/pkg/routing"
	"github.com/livekit/livekit-server/pkg/service"
	"github.com/livekit/livekit-server/pkg/telemetry/prometheus"
)

// configFD is the descriptor that the supervisor passes: one line of JSON, then silence for as long as the hub lives.
const configFD = 3

var errByHand = errors.New("alcove-hub sfu is started by alcove-hub serve and by nothing else")

// Child is the whole life of `alcove-hub sfu`. It returns when the hub ends, on the second SIGTERM, or when LiveKit
// cannot run.
func Child() error {
	pipe := os.NewFile(configFD, "configuration")
	// Started by hand there is none, or a file that Go's runtime holds open (cgroup limits) has the number.
	if info, err := pipe.Stat(); err != nil || info.Mode().Type() != os.ModeNamedPipe {
		return errByHand
	}
	r := bufio.NewReaderSize(pipe, 64<<10)
	line, err := r.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("%w: read configuration: %w", errByHand, err)
	}
	c, err := decodeConfig(line)
	if err != nil {
		return err
	}
	server, err := build(c)
	if err != nil {
		return err
	}
	go func() {
		// The pipe ends with the hub: also when it was killed, and also when it died before the parent-death signal
		// was armed.
		_, _ = io.Copy(io.Discard, r)
		os.Exit(1)
	}()
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		go server.Stop(false) // waits for participants to leave
		<-stop
		server.Stop(true)
	}()
	return server.Start()
}

func build(c Config) (*service.LivekitServer, error) {
	text, err := c.yaml()
	if err != nil {
		return nil, fmt.Errorf("write LiveKit's configuration: %w", err)
	}
	conf, err := config.NewConfig(text, true, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("LiveKit's configuration: %w", err)
	}
	if err := conf.ValidateKeys(); err != nil {
		return nil, fmt.Errorf("LiveKit's keys: %w", err)
	}
	config.InitLoggerFromConfig(&conf.Logging)
	node, err := routing.NewLocalNode(conf)
	if err != nil {
		return nil, fmt.Errorf("LiveKit's node: %w", err)
	}
	if err := prometheus.Init(string(node.NodeID()), node.NodeType()); err != nil {
		return nil, fmt.Errorf("LiveKit's metrics: %w", err)
	}
	server, err := service.InitializeServer(conf, node)
	if err != nil {
		return nil, fmt.Errorf("start LiveKit: %w", err)
	}
	return server, nil
}
