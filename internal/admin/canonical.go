package admin

import (
	"reflect"
	"strings"
	"time"
)

var timeType = reflect.TypeFor[time.Time]()

// canonical returns v as the API promises it: times in UTC, and lists without
// entries as [] rather than null. It copies what it goes through, as a backend may
// keep what it returned.
func canonical(v any) any { return canonicalValue(reflect.ValueOf(v)).Interface() }

func canonicalValue(v reflect.Value) reflect.Value {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == timeType {
			return reflect.ValueOf(v.Interface().(time.Time).UTC())
		}
		c := reflect.New(v.Type()).Elem()
		for i := range v.NumField() {
			_, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			f := v.Field(i)
			if !f.IsZero() || !strings.HasPrefix(options, "omit") {
				c.Field(i).Set(canonicalValue(f))
			}
		}
		return c
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return v // json.RawMessage
		}
		c := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			c.Index(i).Set(canonicalValue(v.Index(i)))
		}
		return c
	case reflect.Map:
		if v.IsNil() {
			return reflect.MakeMap(v.Type())
		}
	case reflect.Pointer:
		if !v.IsNil() {
			c := reflect.New(v.Type().Elem())
			c.Elem().Set(canonicalValue(v.Elem()))
			return c
		}
	}
	return v
}
