//! OpenTelemetry: the engine's spans, sent to a collector by OTLP over HTTP (protobuf).
//!
//! Settings are OpenTelemetry's own variables. Nothing here may hold anything up: spans go to a bounded
//! queue of the library's, which drops what it has no room for, and a thread of its own sends them through
//! Gatepost's one door to the outside.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use gatepost_core::Timestamp;
use gatepost_engine::net::{Client, Headers, OutgoingRequest, SystemResolver, Target, Tries};
use gatepost_engine::spans::{Attribute, Role, Span, SpanSink};
use gatepost_engine::{SystemClock, USER_AGENT};
use http::{HeaderValue, Request, Response};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor};
use tokio::runtime::Handle;

use crate::failure::{Failure, Outcome};

/// Bytes read of a collector's answer.
const ANSWER_BYTES: usize = 64 << 10;
/// How long a collector may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Spans are being sent until this is [stopped](Recording::stop).
pub struct Recording(Arc<Exporter>);

struct Exporter {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
}

/// Begins to send spans, if the environment names a collector ([`crate::logging::collector`]).
///
/// # Errors
/// The collector's URL or one of OpenTelemetry's other variables cannot be used.
pub fn start(extra_ca_pem: Option<Vec<u8>>) -> Outcome<Option<Recording>> {
    let Some((name, url)) = crate::logging::collector() else { return Ok(None) };
    let failed = |what: &dyn fmt::Display| Failure::usage(format!("OpenTelemetry ({name}={url:?}): {what}"));
    let client = Client::unrestricted(
        Arc::new(SystemClock),
        Arc::new(SystemResolver::new()),
        HeaderValue::from_static(USER_AGENT),
        extra_ca_pem,
    )
    .map_err(|error| failed(&error))?;
    let http = Http { client: Arc::new(client), runtime: Handle::current() };
    let exporter =
        SpanExporter::builder().with_http().with_http_client(http).build().map_err(|error| failed(&error))?;
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("gatepost");
    }
    let resource = resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build();
    let mut processor = BatchSpanProcessor::builder(exporter).build();
    processor.set_resource(&resource);
    let scope = InstrumentationScope::builder("gatepost").with_version(env!("CARGO_PKG_VERSION")).build();
    let exporter = Arc::new(Exporter { processor, scope });
    gatepost_engine::spans::install(exporter.clone());
    tracing::info!(url, "spans are sent to a collector");
    Ok(Some(Recording(exporter)))
}

impl Recording {
    /// Sends what is left, within the time a collector may take.
    pub async fn stop(self) {
        let stopping = tokio::task::spawn_blocking(move || self.0.processor.shutdown_with_timeout(TIMEOUT));
        if let Ok(Err(error)) = stopping.await {
            tracing::warn!(%error, "the last spans may not have been sent");
        }
    }
}

impl SpanSink for Exporter {
    fn record(&self, span: Span) {
        let flags = if span.context.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
        let trace_id = TraceId::from_bytes(span.context.trace_id);
        let span_id = SpanId::from_bytes(span.context.span_id);
        self.processor.on_end(SpanData {
            span_context: SpanContext::new(trace_id, span_id, flags, false, TraceState::default()),
            parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from_bytes),
            parent_span_is_remote: span.parent.is_some() && span.parent_is_remote,
            span_kind: match span.role {
                Role::Producer => SpanKind::Producer,
                Role::Client => SpanKind::Client,
            },
            name: Cow::Borrowed(span.name),
            start_time: time(span.start),
            end_time: time(span.end),
            attributes: span.attributes.into_iter().map(|(name, value)| attribute(name, value)).collect(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: span.failed.map_or(Status::Unset, Status::error),
            instrumentation_scope: self.scope.clone(),
        });
    }
}

fn attribute(name: &'static str, value: Attribute) -> KeyValue {
    match value {
        Attribute::Text(text) => KeyValue::new(name, text),
        Attribute::Number(number) => KeyValue::new(name, number),
    }
}

fn time(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(at.as_micros()).unwrap_or(0))
}

/// The library's client, through Gatepost's door to the outside. The exporting thread has no runtime of
/// its own, so the sending is done on the server's.
struct Http {
    client: Arc<Client>,
    runtime: Handle,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http")
    }
}

#[async_trait::async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = Arc::clone(&self.client);
        self.runtime.spawn(async move { send(&client, request).await }).await?
    }
}

async fn send(client: &Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (parts, body) = request.into_parts();
    let target = Target::parse(&parts.uri.to_string()).map_err(|error| error.to_string())?;
    let headers: Headers = parts.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut tries = Tries::within(TIMEOUT);
    let exchange = loop {
        let request = OutgoingRequest {
            target: &target,
            method: parts.method.clone(),
            headers: headers.clone(),
            title_case: false,
            body: body.clone(),
            timeout: tries.left(),
            allow_nets: &[],
            identity: None,
            http1: false,
            fresh: tries.again(),
        };
        if let Some(exchange) = tries.judge(client.send_reading(request, ANSWER_BYTES).await) {
            break exchange;
        }
    };
    let (Some(status), Some(answer)) = (exchange.status, exchange.response) else {
        return Err(exchange.error.unwrap_or_else(|| "no answer".to_owned()).into());
    };
    let mut response = Response::builder().status(status);
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    Ok(response.body(answer.body)?)
}
