// Readiness judges objects by the rules of Flux and of Argo CD, with what
// each of them judges by: the kstatus library and the evaluator of
// spec.healthCheckExprs that Flux's controllers use, and the Lua interpreter
// in which Argo CD runs health checks, with the libraries that it opens in it.
//
// It reads one JSON object from standard input,
//
//	{"objects": [OBJECT...], "healthCheckExprs": [CHECK...], "health": {"GROUP/KIND": "LUA SCRIPT"}}
//
// where each CHECK is an entry of a Kustomization's spec.healthCheckExprs, and
// writes one JSON list to standard output, with a verdict for each object:
//
//	[{"kstatus": {"status": ..., "message": ...}, "expressions": {...}, "argo": {...}}]
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

type verdict struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

type verdicts struct {
	Kstatus     verdict `json:"kstatus"`
	Expressions verdict `json:"expressions"`
	Argo        verdict `json:"argo"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	data, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	var request struct {
		Objects []json.RawMessage             `json:"objects"`
		Checks  []kustomize.CustomHealthCheck `json:"healthCheckExprs"`
		Health  map[string]string             `json:"health"`
	}
	if err := json.Unmarshal(data, &request); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	answer := []verdicts{}
	for i, raw := range request.Objects {
		// Whole numbers become int64, as in the clients of both.
		content := map[string]any{}
		if err := utiljson.Unmarshal(raw, &content); err != nil {
			return fmt.Errorf("object %d: %w", i, err)
		}
		object := &unstructured.Unstructured{Object: content}
		plain, err := status.Compute(object)
		if err != nil {
			return fmt.Errorf("object %d: kstatus: %w", i, err)
		}
		custom, err := evaluate(request.Checks, object, plain)
		if err != nil {
			return fmt.Errorf("object %d: healthCheckExprs: %w", i, err)
		}
		kind := object.GroupVersionKind()
		argo, err := health(request.Health[kind.Group+"/"+kind.Kind], content)
		if err != nil {
			return fmt.Errorf("object %d: Lua: %w", i, err)
		}
		answer = append(answer, verdicts{
			Kstatus:     verdict{Status: plain.Status.String(), Message: plain.Message},
			Expressions: verdict{Status: custom.Status.String(), Message: custom.Message},
			Argo:        argo,
		})
	}
	return json.NewEncoder(out).Encode(answer)
}

// evaluate judges an object by the checks for its kind, and by kstatus when
// there are none.
func evaluate(
	checks []kustomize.CustomHealthCheck, object *unstructured.Unstructured, plain *status.Result,
) (*status.Result, error) {
	for _, check := range checks {
		if check.APIVersion != object.GetAPIVersion() || check.Kind != object.GetKind() {
			continue
		}
		evaluator, err := cel.NewStatusEvaluator(&check.HealthCheckExpressions)
		if err != nil {
			return nil, err
		}
		return evaluator.Evaluate(context.Background(), object)
	}
	return plain, nil
}

// health runs a health check as Argo CD does: the object in the global `obj`,
// a second of time, and no library but these. A kind without a script is
// healthy as soon as it exists.
func health(script string, object map[string]any) (verdict, error) {
	if script == "" {
		return verdict{Status: "Healthy"}, nil
	}
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{
		{lua.LoadLibName, lua.OpenPackage},
		{lua.BaseLibName, lua.OpenBase},
		{lua.TabLibName, lua.OpenTable},
	} {
		call := lua.P{Fn: state.NewFunction(library.open), Protect: true}
		if err := state.CallByParam(call, lua.LString(library.name)); err != nil {
			return verdict{}, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state.SetContext(ctx)
	state.SetGlobal("obj", toLua(state, object))
	if err := state.DoString(script); err != nil {
		return verdict{}, err
	}
	result, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return verdict{}, fmt.Errorf("the script returned a %s instead of a table", state.Get(-1).Type())
	}
	found := verdict{
		Status:  lua.LVAsString(result.RawGetString("status")),
		Message: lua.LVAsString(result.RawGetString("message")),
	}
	switch found.Status {
	case "Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown":
		return found, nil
	}
	return verdict{}, fmt.Errorf("%q is no health status", found.Status)
}

func toLua(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case bool:
		return lua.LBool(value)
	case int64:
		return lua.LNumber(value)
	case float64:
		return lua.LNumber(value)
	case string:
		return lua.LString(value)
	case []any:
		list := state.NewTable()
		for _, item := range value {
			list.Append(toLua(state, item))
		}
		return list
	case map[string]any:
		table := state.NewTable()
		for key, item := range value {
			table.RawSetString(key, toLua(state, item))
		}
		return table
	}
	return lua.LNil
}
