module l2lb.io/hack/tools/definitions

go 1.26.0

tool l2lb.io/hack/tools/definitions

require (
	github.com/cert-manager/cert-manager v1.21.2
	github.com/prometheus-operator/prometheus-operator v0.85.0
)
