package admin

import "time"

// The media types of the API.
const (
	mediaJSON    = "application/json"
	mediaProblem = "application/problem+json" // RFC 9457
	mediaEvents  = "text/event-stream"        // WHATWG HTML, 9.2
)

// heartbeat is how often an event stream without events carries a comment line.
const heartbeat = 15 * time.Second
