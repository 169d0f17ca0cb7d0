package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// check refuses what a route does not take: a misspelt parameter that is passed
// over would be a request that does something else.
func (r *request) check(to *route) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return refuse(http.StatusBadRequest, "bad-query", "the part after the question mark cannot be read: %s", err)
	}
	for name, values := range query {
		if !slices.Contains(to.query, name) {
			return refuse(http.StatusBadRequest, "bad-query", "%.50q is no parameter of %s %s", name, to.method, to.path)
		}
		if len(values) > 1 {
			return bad(name, "given %d times", len(values))
		}
	}
	// FormValue would read a form from the body.
	r.Form = query
	if to.body || r.ContentLength == 0 {
		return nil
	}
	if n, err := r.Body.Read(make([]byte, 1)); n > 0 || err != io.EOF {
		r.writer.Header().Set("Connection", "close")
		return refuse(http.StatusBadRequest, "bad-body", "%s %s takes no body", to.method, to.path)
	}
	r.patient()
	return nil
}

// decode reads the body into a pointer to a struct.
func (r *request) decode(into any) error {
	media, parameters, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset, given := parameters["charset"]
	if err != nil || media != mediaJSON || given && !strings.EqualFold(charset, "utf-8") {
		return refuse(http.StatusUnsupportedMediaType, "bad-content-type", "Content-Type %.100q: want %s", r.Header.Get("Content-Type"), mediaJSON)
	}
	if r.Header.Get("Content-Encoding") != "" {
		return refuse(http.StatusUnsupportedMediaType, "bad-content-type", "Content-Encoding: want none")
	}
	limit := r.server.limits.Body
	data, err := io.ReadAll(http.MaxBytesReader(r.writer, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return refuse(http.StatusRequestEntityTooLarge, "body-too-large", "the body has more than %d bytes", limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		r.writer.Header().Set("Connection", "close")
		return refuse(http.StatusRequestTimeout, "body-too-slow", "the body was not here after %s", r.server.limits.ReadBody)
	case err != nil:
		return refuse(http.StatusBadRequest, "bad-body", "the body ends before its end")
	}
	r.patient()
	return decodeBody(data, into)
}

// patient ends the deadline, which was for the body. While the backend works,
// net/http goes on reading to see whether the client is there, and would take it
// for gone.
func (r *request) patient() {
	http.NewResponseController(r.writer).SetReadDeadline(time.Time{})
}

// decodeBody is json.Unmarshal into a struct for those who make mistakes: no field
// is unknown, named in another case, given twice or null, and nothing follows.
func decodeBody(data []byte, into any) error {
	if !utf8.Valid(data) {
		return refuse(http.StatusBadRequest, "bad-body", "the body is not UTF-8")
	}
	fields := jsonFields(reflect.ValueOf(into).Elem())
	decoder := json.NewDecoder(bytes.NewReader(data))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return refuse(http.StatusBadRequest, "bad-body", "the body is no JSON object")
	}
	seen := make(map[string]bool)
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return badJSON(err)
		}
		name, ok := token.(string)
		if !ok {
			return refuse(http.StatusBadRequest, "bad-body", "the body is no JSON object")
		}
		field, known := fields[name]
		switch {
		case !known:
			return bad(strconv.Quote(clip(name)), "no such field: there are %s", strings.Join(fieldNames(fields), ", "))
		case seen[name]:
			return bad(name, "given twice")
		}
		seen[name] = true
		var raw json.RawMessage
		if err := decoder.Decode(&raw); err != nil {
			return badJSON(err)
		}
		if string(raw) == "null" || json.Unmarshal(raw, field.Addr().Interface()) != nil {
			return bad(name, "%.50q: want %s", raw, wanted(field.Kind()))
		}
	}
	if _, err := decoder.Token(); err != nil {
		return badJSON(err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return refuse(http.StatusBadRequest, "bad-body", "something follows the JSON object")
	}
	return nil
}

// jsonFields are the fields of a struct by their JSON names.
func jsonFields(v reflect.Value) map[string]reflect.Value {
	fields := make(map[string]reflect.Value, v.NumField())
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		fields[name] = v.Field(i)
	}
	return fields
}

func fieldNames(fields map[string]reflect.Value) []string {
	var names []string
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func wanted(kind reflect.Kind) string {
	if kind == reflect.Bool {
		return "true or false"
	}
	return "a string"
}

func badJSON(err error) error {
	return refuse(http.StatusBadRequest, "bad-body", "the body is no JSON: %.200s", err)
}

// clip bounds what is said back of a name that came from outside.
func clip(s string) string {
	const most = 50
	if len(s) > most {
		s = s[:most] + "..."
	}
	return strings.ToValidUTF8(s, "")
}
