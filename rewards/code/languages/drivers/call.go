// Calls one function of the program with JSON arguments from stdin and prints {"value": ..., "args": [...]}.
package main

import (
	rayzeroJSON "encoding/json"
	rayzeroOS "os"
	rayzeroReflect "reflect"
)

func main() {
	out := rayzeroOS.Stdout
	var given []rayzeroJSON.RawMessage
	if rayzeroJSON.NewDecoder(rayzeroOS.Stdin).Decode(&given) != nil {
		rayzeroOS.Exit(1)
	}
	null, _ := rayzeroOS.OpenFile("/dev/null", rayzeroOS.O_RDWR, 0)
	rayzeroOS.Stdout, rayzeroOS.Stdin = null, null
	target := rayzeroReflect.ValueOf(TARGET)
	kind := target.Type()
	if kind.NumIn() != len(given) {
		rayzeroOS.Exit(1)
	}
	values := make([]rayzeroReflect.Value, len(given))
	args := make([]any, len(given))
	for i, text := range given {
		slot := rayzeroReflect.New(kind.In(i))
		if rayzeroJSON.Unmarshal(text, slot.Interface()) != nil {
			rayzeroOS.Exit(1)
		}
		values[i], args[i] = slot.Elem(), slot.Interface()
	}
	var value any
	if results := target.Call(values); len(results) > 0 {
		value = results[0].Interface()
	}
	text, err := rayzeroJSON.Marshal(map[string]any{"value": value, "args": args})
	if err != nil {
		rayzeroOS.Exit(1)
	}
	out.Write(text)
	rayzeroOS.Exit(0)
}
