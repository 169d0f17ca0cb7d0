package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"
)

// refuse is the fault of a request that is wrong in itself. The type is a stable
// word, the detail says what would be right.
func refuse(status int, kind, format string, v ...any) *Fault {
	return &Fault{Status: status, Type: kind, Title: http.StatusText(status), Detail: fmt.Sprintf(format, v...)}
}

// bad is the fault of one value.
func bad(field, format string, v ...any) *Fault {
	return refuse(http.StatusBadRequest, "bad-value", "%s: %s", field, fmt.Sprintf(format, v...))
}

// faultOf is what a client is told of an error. What is not meant for clients goes
// to the log.
func (s *Server) faultOf(r *http.Request, err error) *Fault {
	var f *Fault
	switch {
	case errors.As(err, &f) && f != nil:
		told := *f // the backend may keep its own
		if told.Status < 400 || told.Status > 599 {
			told.Status = http.StatusInternalServerError
		}
		if told.Type == "" {
			told.Type = "refused"
		}
		if told.Title == "" {
			told.Title = http.StatusText(told.Status)
		}
		return &told
	case errors.Is(err, context.DeadlineExceeded):
		return refuse(http.StatusGatewayTimeout, "timeout",
			"the node did not come to an end in time; if this was a write, the history says whether it stands")
	case r.Context().Err() != nil:
		// The client has gone, or Close cuts off: nobody reads this.
		return refuse(http.StatusServiceUnavailable, "cancelled", "the request was given up")
	}
	s.log.Errorf("admin: %s %.200q: %s", r.Method, r.URL.Path, err)
	return refuse(http.StatusInternalServerError, "internal", "an error of the node itself, which is in its log")
}

// writeFault answers with problem+json (RFC 9457).
func (s *Server) writeFault(w http.ResponseWriter, f *Fault) {
	s.write(w, f.Status, mediaProblem, f)
}

// write answers with v as JSON.
func (s *Server) write(w http.ResponseWriter, status int, media string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		s.log.Errorf("admin: encoding an answer: %s", err)
		status, media = http.StatusInternalServerError, mediaProblem
		body = []byte(`{"status":500,"type":"internal","title":"Internal Server Error","detail":"the answer cannot be written as JSON"}`)
	}
	body = append(body, '\n')
	w.Header().Set("Content-Type", media)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body) // an error is the client's going away
}

// retryAfter is the value of a Retry-After header, in whole seconds.
func retryAfter(wait time.Duration) string {
	return strconv.Itoa(max(1, int(math.Ceil(wait.Seconds()))))
}
