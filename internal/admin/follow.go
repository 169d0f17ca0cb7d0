package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// silence is how long an event stream may be without a line before its client
// takes the connection for dead: three heartbeats.
const silence = 3 * heartbeat

// maxLine bounds a line of an event stream, in bytes. An event is one line.
const maxLine = 1 << 20

var errSilent = errors.New("nothing came for three heartbeats: the connection is dead")

// Events calls f with each event after the one numbered after, first those that the
// server still remembers. It returns what f returns, the context's error, or an
// [*UnreachableError] when the stream ends: to go on is the caller's matter, with
// the number of the last event seen.
func (c *Client) Events(ctx context.Context, after uint64, f func(Event) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(c.timeout, func() { cancel(errTimeout) })
	defer watchdog.Stop()

	path := "/v1/events"
	if after > 0 {
		path += "?after=" + strconv.FormatUint(after, 10)
	}
	response, err := c.send(ctx, http.MethodGet, path, nil, mediaEvents)
	if err != nil {
		return c.explain(ctx, http.MethodGet, c.caused(ctx, err))
	}
	defer response.Body.Close()
	watchdog.Stop()
	watchdog = time.AfterFunc(c.silence, func() { cancel(errSilent) })
	defer func() { watchdog.Stop() }()

	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		watchdog.Reset(c.silence)
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data:"))
		if !ok {
			continue // id and event are in the data too; comments are heartbeats
		}
		var event Event
		if err := json.Unmarshal(data, &event); err != nil {
			return fmt.Errorf("%s: an event cannot be read: %w", c.server, err)
		}
		if err := f(event); err != nil {
			return err
		}
		watchdog.Reset(c.silence) // f's time is not the server's
	}
	err = lines.Err()
	if errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("%s: an event is over %d bytes", c.server, maxLine)
	}
	if err == nil {
		err = fmt.Errorf("the event stream ended: %w", io.EOF)
	}
	return c.explain(ctx, http.MethodGet, c.caused(ctx, err))
}

// caused puts the reason a context was cancelled for in place of the error that
// this led to.
func (c *Client) caused(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
