#!/bin/sh
# Installs aimd in the cluster that kubectl speaks to, and removes it again. It looks first, says what it found and what
# stands against it, and only then changes anything. Needs kubectl and the standard tools, nothing else.
set -eu

usage() {
    cat <<'END'
Usage: install.sh [install] [OPTIONS]
       install.sh uninstall [--purge] [--dry-run] [--context NAME]

Installs aimd in the cluster that kubectl speaks to: definitions, policies, and the DaemonSet in namespace aimd-system.
Where KServe is, its InferenceService is left as it is; elsewhere aimd brings one. To run it again changes nothing that is
as it should be; what is installed is what the options of the last run say.

  --image IMAGE            of the DaemonSet (default: aimd:0.1.0, which has to be on the nodes)
  --prometheus             metrics on the pods' addresses and a PodMonitor, for the Prometheus operator
  --kserve-schema          add gpuSharing to KServe's own definition: full flavour, KServe 0.20 or newer.
                           A KServe upgrade undoes it: run this again then.
  --kserve-version X.Y     KServe's version, where its controller's image does not tell
  --wait[=SECONDS]         until the DaemonSet runs on its nodes, 300 seconds at most
  --dry-run                ask the API server whether it would take everything; nothing is changed
  --context NAME           of the kubeconfig
  -h, --help

uninstall removes the DaemonSet, NodePartitions, policies, roles, and what --kserve-schema added. KServe's definition and
all InferenceServices stay. aimd's own InferenceService definition goes if there is no InferenceService, or with them:
  --purge                  remove aimd's own InferenceService definition with all InferenceServices
The namespace goes unless something is in it that is not aimd's.
END
}

HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
NAMESPACE=aimd-system # the policies know the daemons by it
IMAGE=aimd:0.1.0      # as daemonset/base has it
PART=app.kubernetes.io/part-of=aimd
SERVICES=inferenceservices.serving.kserve.io
PARTITIONS=nodepartitions.aimd.dev
MONITORS=podmonitors.monitoring.coreos.com
ADMISSION=/apis/admissionregistration.k8s.io/v1
SPEC=/spec/versions/0/schema/openAPIV3Schema/properties/spec

command=install image=$IMAGE prometheus='' schema='' kserve_version='' wait='' dry_run='' context='' purge='' flavour=''

say() { printf '%s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# -- options ------------------------------------------------------------------------------------------------

misused() {
    printf 'error: %s; --help shows what there is\n' "$*" >&2
    exit 2
}

read_options() {
    while [ $# -gt 0 ]; do
        option=$1
        case $option in
        --image | --kserve-version | --context)
            value=${2-}
            shift
            ;;
        --image=* | --kserve-version=* | --context=* | --wait=*) value=${option#*=} option=${option%%=*} ;;
        --wait) value=300 ;;
        *) value=none ;;
        esac
        [ -n "$value" ] || misused "$option needs a value"
        case $option in
        install | uninstall) command=$option ;;
        --image) image=$value ;;
        --kserve-version) kserve_version=$value ;;
        --context) context=$value ;;
        --prometheus) prometheus=yes ;;
        --kserve-schema) schema=yes ;;
        --wait) wait=$value ;;
        --dry-run) dry_run=yes ;;
        --purge) purge=yes ;;
        -h | --help) usage && exit 0 ;;
        *) misused "$1 is unknown" ;;
        esac
        [ $# = 0 ] || shift
    done
    check_options
}

check_options() {
    case $image in *[!A-Za-z0-9._:/@-]*) misused "image '$image' is no name of an image" ;; esac
    case $kserve_version in
    '') ;;
    *[!0-9.]* | .* | *. | *..*) misused "KServe's version is like 0.20, not '$kserve_version'" ;;
    *.*) ;;
    *) misused "KServe's version is like 0.20, not '$kserve_version'" ;;
    esac
    case $wait in *[!0-9]*) misused "--wait=SECONDS takes a whole number, not '$wait'" ;; esac
    case $command$purge in installyes) misused "--purge is for uninstall" ;; esac
    case $command$prometheus$schema$kserve_version$wait$image in
    install* | "uninstall$IMAGE") ;;
    *) misused "uninstall knows --purge, --dry-run and --context" ;;
    esac
}

# -- kubectl ------------------------------------------------------------------------------------------------

k() { kubectl ${context:+"--context=$context"} "$@"; }

ask() { # WHAT-FAILED ARGUMENTS OF KUBECTL...: its output, or the end with what it complains about
    failed=$1
    shift
    k "$@" 2>"$scratch/complaint" || die "$failed: $(complaint)"
    sed -n 's/^Warning: /warning: /p' "$scratch/complaint" >&2
}

complaint() { # of kubectl, in one line, without the lines of its log
    sed -e '/^[EWI][0-9][0-9][0-9][0-9] /d' -e '/^Warning: /d' -e '/^ *$/d' -e 's/^[Ee]rror: //' \
        -e 's/^Error from server ([A-Za-z]*): //' -e 's/^error when [^:]*: //' "$scratch/complaint" |
        paste -s -d ';' - | sed 's/;/; /g'
}

change() { # WHAT-FAILED ARGUMENTS OF KUBECTL...: the same of what changes something
    ask "$@" ${dry_run:+--dry-run=server}
}

there_is() { # KIND NAME
    found=$(ask "$1 $2 cannot be read" get "$1" "$2" --ignore-not-found -o name) || exit 1
    [ -n "$found" ]
}

# -- what there is ------------------------------------------------------------------------------------------

look_at_server() {
    command -v kubectl >/dev/null || die "kubectl is not in PATH, and it is what this script works with"
    version=$(ask "the API server cannot be asked" get --raw /version --request-timeout=20s)
    version=$(printf '%s' "$version" | sed -n 's/.*"gitVersion": *"v\{0,1\}\([^"]*\)".*/\1/p')
    ask "the API server does not tell what it serves" get --raw $ADMISSION >"$scratch/admission"
    grep -q '"validatingadmissionpolicies"' "$scratch/admission" ||
        die "Kubernetes $version does not serve ValidatingAdmissionPolicy v1, without which a node's aimd could write" \
            "other nodes' records: 1.30 and newer do"
    keeper=''
    ! grep -q '"mutatingadmissionpolicies"' "$scratch/admission" || keeper=yes
    say "Kubernetes $version"
}

look_at_kserve() {
    at='{.spec.versions[0].schema.openAPIV3Schema.properties.spec'
    ask "the definition of InferenceService cannot be read" get crd $SERVICES --ignore-not-found -o \
        "jsonpath={.metadata.name}|{.metadata.labels.app\.kubernetes\.io/part-of}|\
$at.x-kubernetes-preserve-unknown-fields}|$at.properties.gpuSharing.description}" >"$scratch/definition"
    name='' part='' open='' sharing=''
    IFS='|' read -r name part open sharing <"$scratch/definition" || :
    case $sharing in
    *aimd.dev/*) sharing=aimd ;; # the description says it
    ?*) sharing=other ;;
    esac
    # The label alone proves nothing: it is still there when KServe was installed over aimd's definition.
    case $name:$part:$open:$sharing in
    :*) definition=none ;;
    *:aimd:true:aimd) definition=own ;;
    *:true:*) definition=kserve flavour=minimal ;;
    *) definition=kserve flavour=full ;;
    esac
    look_at_controller
}

look_at_controller() {
    ask "KServe's controller cannot be looked for" get deployments --all-namespaces \
        -l control-plane=kserve-controller-manager -o "jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name} \
{.spec.template.spec.containers[?(@.name=='manager')].image}{'\n'}{end}" >"$scratch/controllers"
    controller='' controller_image=''
    read -r controller controller_image <"$scratch/controllers" || :
    if [ -z "$kserve_version" ]; then
        kserve_version=$(printf '%s' "$controller_image" | sed -n 's/^.*:v\{0,1\}\([0-9][0-9]*\.[0-9][0-9]*\).*$/\1/p')
    fi
}

say_kserve() {
    case $definition in
    none) say "no KServe: aimd brings its own definition of InferenceService" ;;
    own) say "${controller:+"KServe's controller is here, but "}the definition of InferenceService is aimd's own" ;;
    kserve) say "KServe ${kserve_version:-of unknown version}, its definition of InferenceService is the $flavour one" ;;
    esac
}

# Everything that tells of GPUs and of who has them: NODE KIND KEY VALUE.
look_at_nodes() {
    # shellcheck disable=SC2016 # the template's variables, not the shell's
    ask "nodes cannot be listed" get nodes -o 'go-template={{range .items}}{{$node := .metadata.name -}}
{{range $key, $value := .metadata.labels}}{{$node}} label {{$key}} {{$value}}{{"\n"}}{{end -}}
{{range $key, $value := .metadata.annotations}}{{$node}} annotation {{$key}}{{"\n"}}{{end -}}
{{range $key, $value := .status.capacity}}{{$node}} capacity {{$key}} {{$value}}{{"\n"}}{{end}}{{end}}' >"$scratch/nodes"
    ask "the API server does not tell what it serves" get --raw /apis >"$scratch/apis"
    if grep -q '"resource.k8s.io"' "$scratch/apis"; then
        ask "ResourceSlices cannot be listed" get resourceslices.resource.k8s.io -o 'go-template={{range .items -}}
{{if .spec.nodeName}}{{.spec.nodeName}} slice {{.spec.driver}}{{"\n"}}{{end}}{{end}}' >>"$scratch/nodes"
    fi
}

say_nodes() { # the same labels as in daemonset/base/daemonset.yaml
    count=$(awk '$2 == "label" && ($3 == "amd.com/gpu.device-id" || $4 == "true" && ($3 == "aimd.dev/gpu" ||
        $3 == "feature.node.kubernetes.io/amd-gpu" || $3 ~ /^feature\.node\.kubernetes\.io\/pci-(1200|0380)_1002\.present$/)) {
            found[$1] } END { for (node in found) count++; print count + 0 }' "$scratch/nodes")
    say "nodes with a label of AMD GPUs: $count"
    [ "$count" != 0 ] || warn "no node has a label of AMD GPUs, so aimd runs on none: where no labeller does it," \
        "kubectl label node NODE aimd.dev/gpu=true"
}

# As aimd itself tells it (planning/sharing/rivals.py), and what to do.
warn_of_rivals() {
    awk '
    function told(node, what, remedy) {
        if (!((node, remedy) in seen)) { seen[node, remedy]; order[++count] = node SUBSEP remedy }
        says[node SUBSEP remedy] = what
    }
    $2 == "label" && index($3, "dcm.amd.com/") == 1 && !($1 in dcm) {
        dcm[$1] = $3
        told($1, "AMD'\''s Device Config Manager has labelled the node (" $3 ")",
            "take the node from its DaemonSet and remove its labels dcm.amd.com/*")
    }
    $2 == "slice" && $3 == "gpu.amd.com" {
        told($1, "AMD'\''s DRA driver publishes ResourceSlices for the node (" $3 ")", "take the node from that driver'\''s DaemonSet")
    }
    $2 == "capacity" && index($3, "amd.com/") == 1 && $4 != "0" {
        offered[$1] = offered[$1] (offered[$1] ? ", " : "") $3
        told($1, "a device plugin offers " offered[$1] " on the node", "take the node from the device plugin'\''s DaemonSet")
    }
    $2 == "annotation" && index($3, "hami.io/node-") == 1 && tolower($3) ~ /amd/ && !($1 in hami) {
        hami[$1] = $3
        told($1, "HAMi has registered AMD GPUs of the node (" $3 ")", "take the node from HAMi and remove its annotations hami.io/node-*")
    }
    END {
        for (i = 1; i <= count; i++) {
            split(order[i], part, SUBSEP)
            printf "warning: node %s: %s; until that is gone aimd changes no modes there: %s\n", part[1], says[order[i]], part[2]
        }
    }' "$scratch/nodes" >&2
}

# -- install ------------------------------------------------------------------------------------------------

check_wishes() { # all that can be known before anything is changed
    [ -z "$prometheus" ] || there_is crd $MONITORS ||
        die "--prometheus needs the Prometheus operator, whose definition $MONITORS is not here"
    [ "$definition" != none ] || [ -z "$controller" ] ||
        die "KServe's controller is here ($controller), its definition of InferenceService is not: install KServe's first"
    [ -z "$schema" ] || check_schema_wish
}

check_schema_wish() {
    [ "$definition" = kserve ] || die "--kserve-schema is for KServe's definition; aimd's own has gpuSharing"
    [ "$flavour" = full ] ||
        die "--kserve-schema is for KServe's full definition; this is the minimal one, which takes any field unchecked"
    [ "$sharing" != other ] || die "KServe's definition has a field gpuSharing that is not aimd's: it is not replaced"
    [ -n "$kserve_version" ] ||
        die "the image of KServe's controller (${controller_image:-none found}) does not tell its version:" \
            "say it by --kserve-version"
    at_least 0 20 "$kserve_version" || die "KServe $kserve_version removes spec.gpuSharing from what is applied:" \
        "--kserve-schema needs 0.20; annotations aimd.dev/... do the same with any version"
}

at_least() { # MAJOR MINOR VERSION
    major=${3%%.*} minor=${3#*.}
    minor=${minor%%[!0-9]*}
    [ "$major" -gt "$1" ] || { [ "$major" -eq "$1" ] && [ "$minor" -ge "$2" ]; }
}

render() { # the same as an overlay has, in steps: definitions and policies are there before what needs them
    files=nodepartitions.yaml
    [ "$definition" = kserve ] || files="$files gpu-sharing-crd.yaml"
    for file in $files; do printf -- '---\n' && cat "$HERE/crd/$file"; done >"$scratch/definitions.yaml"
    files='annotations.yaml own-node.yaml'
    [ -z "$keeper" ] || files="$files status-keeper.yaml"
    for file in $files; do printf -- '---\n' && cat "$HERE/policies/$file"; done >"$scratch/policies.yaml"
    folder=base
    [ -z "$prometheus" ] || folder=overlays/prometheus-operator
    ask "daemonset/$folder cannot be rendered" kustomize "$HERE/daemonset/$folder" >"$scratch/rendered.yaml"
    grep -q "image: $IMAGE\$" "$scratch/rendered.yaml" || die "daemonset/$folder does not have image $IMAGE"
    place=''
    if [ -n "$dry_run" ] && ! there_is namespace $NAMESPACE; then
        say "namespace $NAMESPACE is not there yet: what belongs into it is tried in default"
        place="s|^\(  namespace: \)$NAMESPACE\$|\1default|"
    fi
    sed -e "s|image: $IMAGE\$|image: $image|" -e "$place" "$scratch/rendered.yaml" >"$scratch/daemonset.yaml"
}

apply() { # WHAT
    change "$1 cannot be applied" apply --server-side --force-conflicts --field-manager=aimd-install -f "$scratch/$1.yaml"
}

install() {
    look_at_server
    look_at_kserve
    say_kserve
    look_at_nodes
    say_nodes
    warn_of_rivals
    check_wishes
    render
    apply definitions
    [ -n "$dry_run" ] || await_definitions
    [ -z "$schema" ] || add_schema
    apply policies
    apply daemonset
    [ -n "$prometheus" ] || ! there_is crd $MONITORS || remove "the PodMonitor" $MONITORS aimd -n $NAMESPACE
    [ -z "$wait" ] || [ -n "$dry_run" ] || await_daemons
    conclude
}

await_definitions() {
    ask "$PARTITIONS is not established" wait --for=condition=Established crd/$PARTITIONS --timeout=60s >/dev/null
    [ "$definition" = kserve ] ||
        ask "$SERVICES is not established" wait --for=condition=Established crd/$SERVICES --timeout=60s >/dev/null
}

add_schema() {
    change "gpuSharing cannot be added to KServe's definition" \
        patch crd $SERVICES --type=json --patch-file "$HERE/crd/kserve-overlay.yaml"
    say "spec.gpuSharing is checked in KServe's definition; an upgrade of KServe undoes that, then run this again"
}

await_daemons() {
    ask "DaemonSet aimd is not ready everywhere (kubectl -n $NAMESPACE get pods -o wide)" \
        rollout status daemonset/aimd -n $NAMESPACE --timeout="${wait}s"
}

conclude() {
    if [ "$definition" = kserve ] && [ -z "$schema$sharing" ] && [ "$flavour" = full ]; then
        say "InferenceServices ask by annotations aimd.dev/...; for spec.gpuSharing see --kserve-schema"
    fi
    [ -n "$keeper" ] || [ "$definition" != kserve ] ||
        say "Kubernetes $version has no MutatingAdmissionPolicy v1 (1.36): KServe drops status.gpuSharing now and then," \
            "and aimd writes it again within minutes"
    if [ -n "$dry_run" ]; then
        say "nothing was changed"
    else
        say "aimd is installed: kubectl get nodepartitions"
    fi
}

# -- uninstall ----------------------------------------------------------------------------------------------

remove() { # WHAT ARGUMENTS OF KUBECTL DELETE...
    what=$1
    shift
    change "$what cannot be removed" delete --ignore-not-found --timeout=120s "$@"
}

uninstall() {
    look_at_server
    look_at_kserve
    remove "the DaemonSet" daemonset aimd -n $NAMESPACE --cascade=foreground
    ! there_is crd $MONITORS || remove "the PodMonitor" $MONITORS aimd -n $NAMESPACE
    remove "NodePartitions" crd $PARTITIONS
    remove_policies
    remove "the role" clusterrolebinding/aimd clusterrole/aimd
    case $definition in
    kserve) leave_kserve ;;
    own) remove_definition ;;
    esac
    remove_namespace
    say "left on the nodes: /var/lib/aimd with the ledger, and the partition modes as they are"
    [ -z "$dry_run" ] || say "nothing was changed"
}

remove_policies() {
    remove "the policies" -f "$HERE/policies/annotations.yaml" -f "$HERE/policies/own-node.yaml"
    [ -z "$keeper" ] || remove "the status keeper" -f "$HERE/policies/status-keeper.yaml"
}

leave_kserve() {
    if [ "$sharing" = aimd ]; then
        services=$(ask "InferenceServices cannot be listed" get $SERVICES --all-namespaces \
            -o 'go-template={{range .items}}{{if .spec.gpuSharing}}{{.metadata.namespace}}/{{.metadata.name}} {{end}}{{end}}')
        change "gpuSharing cannot be taken from KServe's definition" \
            patch crd $SERVICES --type=json -p "[{\"op\": \"remove\", \"path\": \"$SPEC/properties/gpuSharing\"}]"
        [ -z "$services" ] || say "the API server drops spec.gpuSharing of these from now on: $services"
    fi
    say "KServe's definition and its InferenceServices stay; what aimd told in their status is its last word"
    [ -z "$purge" ] || say "--purge is about aimd's own definition, and here it is KServe's"
}

remove_definition() {
    if [ -n "$controller" ]; then
        say "the definition of InferenceService stays, KServe's controller ($controller) uses it"
        return
    fi
    ask "InferenceServices cannot be listed" get $SERVICES --all-namespaces -o name >"$scratch/services"
    count=$(wc -l <"$scratch/services" | tr -d ' ')
    if [ "$count" = 0 ] || [ -n "$purge" ]; then
        remove "the definition of InferenceService" crd $SERVICES
    else
        say "the definition of InferenceService stays, there are $count of them; --purge removes it and them"
    fi
}

remove_namespace() {
    remove "the service account" serviceaccount aimd -n $NAMESPACE
    remove "the configuration" configmap -l $PART -n $NAMESPACE
    there_is namespace $NAMESPACE || return 0
    ask "what is in namespace $NAMESPACE cannot be listed" get -n $NAMESPACE -l app.kubernetes.io/part-of!=aimd -o name \
        configmaps,secrets,serviceaccounts,services,persistentvolumeclaims,pods,deployments,daemonsets,statefulsets,jobs \
        >"$scratch/in-namespace"
    others=$(grep -v -x -e configmap/kube-root-ca.crt -e configmap/openshift-service-ca.crt -e serviceaccount/default \
        "$scratch/in-namespace" | paste -s -d ' ' -)
    if [ -n "$others" ]; then
        say "namespace $NAMESPACE stays, in it is what is not aimd's: $others"
    else
        remove "the namespace" namespace $NAMESPACE
    fi
}

# -----------------------------------------------------------------------------------------------------------

read_options "$@"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
$command
