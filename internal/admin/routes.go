package admin

import (
	_ "embed"
	"encoding/json"
	"net/http"
	"strings"
)

//go:embed openapi.json
var openapi []byte

// route is one operation of the API.
type route struct {
	method, path string   // all but GET are writes
	query        []string // the parameters it takes
	body         bool     // it takes one
	// answer returns what becomes the JSON of the response.
	answer func(*request) (any, error)
	stream bool // instead of answer
}

// routes are all there are. openapi.json describes them, and a test holds the two
// against each other.
var routes = []route{
	{method: "GET", path: "/v1/status", answer: func(r *request) (any, error) { return r.backend.Status(), nil }},
	{method: "GET", path: "/v1/masters", answer: func(r *request) (any, error) { return Masters{r.backend.Masters()}, nil }},
	{method: "GET", path: "/v1/masters/{host}", answer: oneMaster},
	{method: "POST", path: "/v1/masters/{host}/rejoin", answer: rejoin},
	{method: "GET", path: "/v1/plan", query: []string{"kind", "to"}, answer: plan},
	{method: "GET", path: "/v1/zones", answer: func(r *request) (any, error) { return Zones{r.backend.Zones()}, nil }},
	{method: "GET", path: "/v1/zones/{datacenter}", answer: oneZone},
	{method: "GET", path: "/v1/camaster", answer: func(r *request) (any, error) { return r.backend.Camaster(), nil }},
	{method: "PUT", path: "/v1/camaster", body: true, answer: setCamaster},
	{method: "GET", path: "/v1/history", query: []string{"key", "limit"}, answer: history},
	{method: "PUT", path: "/v1/drains/{host}", body: true, answer: drain},
	{method: "DELETE", path: "/v1/drains/{host}", query: []string{"reason"}, answer: undrain},
	{method: "GET", path: "/v1/cluster", answer: func(r *request) (any, error) { return r.backend.Cluster(), nil }},
	{method: "GET", path: "/v1/keys", answer: func(r *request) (any, error) { return r.backend.Keys(r.Context()) }},
	{method: "POST", path: "/v1/keys", answer: func(r *request) (any, error) { return r.backend.AddKey(r.Context(), r.caller.actor()) }},
	{method: "POST", path: "/v1/keys/{id}/use", answer: useKey},
	{method: "DELETE", path: "/v1/keys/{id}", answer: removeKey},
	{method: "GET", path: "/v1/events", query: []string{"after"}, stream: true},
	{method: "GET", path: "/v1/openapi.json", answer: func(*request) (any, error) { return json.RawMessage(openapi), nil }},
}

func oneZone(r *request) (any, error) {
	name := r.PathValue("datacenter")
	zones := r.backend.Zones()
	var known []string
	for _, z := range zones {
		if z.Datacenter == name {
			return z, nil
		}
		known = append(known, z.Datacenter)
	}
	return nil, refuse(http.StatusNotFound, "no-such-datacenter", "%.100q is no datacenter: there are %.1000s", name, strings.Join(known, ", "))
}

func oneMaster(r *request) (any, error) {
	host, err := hostname("host", r.PathValue("host"))
	if err != nil {
		return nil, err
	}
	return r.backend.Master(host)
}

func rejoin(r *request) (any, error) {
	host, err := hostname("host", r.PathValue("host"))
	if err != nil {
		return nil, err
	}
	return r.backend.Rejoin(r.Context(), r.caller.actor(), host)
}

func plan(r *request) (any, error) {
	kind := Kind(r.FormValue("kind"))
	if kind != KindFailover && kind != KindSwitchover {
		return nil, bad("kind", "%.50q: want failover or switchover", string(kind))
	}
	to, err := hostname("to", r.FormValue("to"))
	if err != nil {
		return nil, err
	}
	return r.backend.Plan(kind, to)
}

func setCamaster(r *request) (any, error) {
	var set SetCamaster
	if err := r.decode(&set); err != nil {
		return nil, err
	}
	if err := set.check(); err != nil {
		return nil, err
	}
	return r.backend.SetCamaster(r.Context(), r.caller.actor(), set)
}

func drain(r *request) (any, error) {
	host, err := hostname("host", r.PathValue("host"))
	if err != nil {
		return nil, err
	}
	var set SetDrain
	if err := r.decode(&set); err != nil {
		return nil, err
	}
	if err := set.check(); err != nil {
		return nil, err
	}
	return r.backend.Drain(r.Context(), r.caller.actor(), host, set)
}

func undrain(r *request) (any, error) {
	host, err := hostname("host", r.PathValue("host"))
	if err != nil {
		return nil, err
	}
	reason := r.FormValue("reason")
	if reason != "" {
		if err := checkReason(reason); err != nil {
			return nil, err
		}
	}
	return r.backend.Undrain(r.Context(), r.caller.actor(), host, reason)
}

func useKey(r *request) (any, error) {
	id, err := keyID(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return r.backend.UseKey(r.Context(), r.caller.actor(), id)
}

func removeKey(r *request) (any, error) {
	id, err := keyID(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return r.backend.RemoveKey(r.Context(), r.caller.actor(), id)
}

func history(r *request) (any, error) {
	key, limit, err := historyQuery(r.FormValue("key"), r.FormValue("limit"))
	if err != nil {
		return nil, err
	}
	writes := r.backend.History(key)
	if limit > 0 && len(writes) > limit {
		writes = writes[:limit]
	}
	return History{writes}, nil
}
