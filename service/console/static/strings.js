// Every text of the page, in English and Chinese. {name} is filled in.
const english = {
  model: "Model", api: "API", metrics: "Metrics", language: "中文", light: "Light", dark: "Dark",
  offline: "The server does not answer: {error}", none: "No model is ready.",
  idle: "Idle: no requests in the last 10 s", met: "SLO met: {share} within {limit}", missed: "SLO missed: {share} within {limit}",
  impossible: "This SLO cannot be met at the quality floor",
  "why-full": "Full quality: only channels that change nothing are skipped.",
  "why-level": "To stay in time, the level is at {level} and {skipped} of the work is skipped. The floor allows up to {highest}.",
  "why-ceiling": "The level is as high as it may be, {highest}: {reason}. More load than this is refused.",
  "bound-floor": "the quality floor of {floor}", "bound-profile": "the profile's last operating point", "bound-live": "live agreement, {live}, is below the floor",
  "why-impossible": "One request alone, at the highest allowed level {highest}, would take longer than {limit}. Allow more time or a lower floor.",
  "two-limits": "{first} to the first token and {token} for each further one", "tail-first": "p{percentile} first token",
  tail: "p{percentile} latency", "tail-note": "of {limit} allowed; median {median}", quality: "Quality", "quality-note": "expected; floor {floor}",
  "quality-live": "expected; live {live} of {samples}; floor {floor}",
  skipped: "Work skipped", "skipped-note": "level {level} of at most {highest}",
  objective: "Objective", "first-token": "First token", "each-token": "Each further token", latency: "Latency", floor: "Quality floor", percentile: "Percentile", shed: "Refuse what would be late",
  token: "Admin token", saved: "In force.", "token-needed": "The server asks for its admin token.",
  strip: "Within the SLO, second by second: the last minute",
  "chart-latency": "Latency, ms", "chart-level": "Level", "chart-outcomes": "Requests per second", "chart-profile": "Quality against work",
  "chart-queue": "Queue", waiting: "waiting", running: "running",
  "no-charts": "Charts need the extra “console”: pip install 'sluice-serve[console]'",
  seconds: "seconds ago", slo: "SLO", work: "work done", agreement: "agreement with dense",
  ok: "served", refused: "refused", expired: "expired", cancelled: "cancelled", error: "failed", invalid: "invalid",
  network: "The network", "network-lead": "Each square is a channel; the lit ones were computed for the last request. Where a layer does not tell which, or has too many, its bar or shade is the share computed of late.",
  "network-empty": "No request yet.", active: "{active} of {channels}", computed: "{share} computed",
  try: "Try it", "try-pick": "Pick an image", "try-draw": "or draw one", clear: "Clear", drawing: "Drawing area, {width} by {height} pixels",
  message: "Write a message", send: "Send", "message-example": "What is a sluice?",
  "chat-facts": "{first} to the first token, {token} for each further one · {skipped} of the work skipped",
  clip: "Pick a recording of speech", record: "or record one", "record-stop": "Stop recording", wave: "The loudness of the recording over time",
  "clip-length": "{seconds} s", "clip-unreadable": "The browser cannot read this file as sound.", "no-microphone": "No microphone is available.",
  "same-text": "The same text as the dense model", "other-text": "Another text than the dense model",
  "text-one": "Type a text", "text-two": "and another", example: "Example {number}", similarity: "{value} alike",
  "example-1-1": "The concert was cancelled because of the storm.", "example-1-2": "Bad weather stopped the show.",
  "example-2-1": "She planted tomatoes behind the house.", "example-2-2": "The central bank raised interest rates.",
  "example-3-1": "How do I reset my password?", "example-3-2": "I cannot log in to my account any more.",
  follow: "Level follows the SLO", level: "Level", served: "As served", dense: "Dense",
  facts: "{ms} ms · {skipped} of the work skipped", "try-verdict": "{same}, {times}× as fast.",
  "same-answer": "The same answer as the dense model", "other-answer": "Another answer than the dense model", "embedding-agreement": "Cosine to the dense model {value}",
};
const chinese = {
  model: "模型", api: "接口", metrics: "指标", language: "English", light: "浅色", dark: "深色",
  offline: "服务器没有响应：{error}", none: "没有就绪的模型。",
  idle: "空闲：最近 10 秒没有请求", met: "满足 SLO：{share} 在 {limit} 内", missed: "未满足 SLO：{share} 在 {limit} 内",
  impossible: "在质量下限内无法满足此 SLO",
  "why-full": "完整质量：只跳过不改变结果的通道。",
  "why-level": "为按时完成，档位为 {level}，跳过 {skipped} 的计算。质量下限允许到 {highest}。",
  "why-ceiling": "档位已到上限 {highest}：{reason}。更多的负载会被拒绝。",
  "bound-floor": "质量下限 {floor}", "bound-profile": "配置文件的最后一个工作点", "bound-live": "实测一致率 {live} 低于下限",
  "why-impossible": "单独一个请求在最高档位 {highest} 也会超过 {limit}。请放宽延迟或降低质量下限。",
  "two-limits": "首个词元 {first}、之后每个 {token}", "tail-first": "p{percentile} 首个词元",
  tail: "p{percentile} 延迟", "tail-note": "允许 {limit}；中位数 {median}", quality: "质量", "quality-note": "预期；下限 {floor}",
  "quality-live": "预期；实测 {live}（{samples} 次）；下限 {floor}",
  skipped: "跳过的计算", "skipped-note": "档位 {level}，最高 {highest}",
  objective: "目标", "first-token": "首个词元", "each-token": "之后每个词元", latency: "延迟", floor: "质量下限", percentile: "百分位", shed: "拒绝会超时的请求",
  token: "管理令牌", saved: "已生效。", "token-needed": "服务器要求管理令牌。",
  strip: "最近一分钟，逐秒是否满足 SLO",
  "chart-queue": "队列", waiting: "等待", running: "运行",
  "chart-latency": "延迟（毫秒）", "chart-level": "档位", "chart-outcomes": "每秒请求数", "chart-profile": "质量与计算量",
  "no-charts": "图表需要附加组件：pip install 'sluice-serve[console]'",
  seconds: "秒前", slo: "SLO", work: "完成的计算", agreement: "与完整模型一致",
  ok: "完成", refused: "拒绝", expired: "过期", cancelled: "取消", error: "失败", invalid: "无效",
  network: "网络", "network-lead": "每个方格是一个通道；亮的是为最近一个请求计算的通道。无法逐个显示的层，以条形或深浅表示最近计算的比例。",
  "network-empty": "还没有请求。", active: "{active} / {channels}", computed: "计算 {share}",
  try: "试一试", "try-pick": "选一张图片", "try-draw": "或者画一张", clear: "清除", drawing: "绘图区，{width}×{height} 像素",
  message: "写一条消息", send: "发送", "message-example": "What is a sluice?",
  "chat-facts": "首个词元 {first}，之后每个 {token} · 跳过 {skipped} 的计算",
  clip: "选一段语音录音", record: "或者录一段", "record-stop": "停止录音", wave: "录音的音量随时间的变化",
  "clip-length": "{seconds} 秒", "clip-unreadable": "浏览器无法将此文件作为声音读取。", "no-microphone": "没有可用的麦克风。",
  "same-text": "与完整模型的文字相同", "other-text": "与完整模型的文字不同",
  "text-one": "输入一段文字", "text-two": "再输入一段", example: "示例 {number}", similarity: "相似度 {value}",
  "example-1-1": "The concert was cancelled because of the storm.", "example-1-2": "Bad weather stopped the show.",
  "example-2-1": "She planted tomatoes behind the house.", "example-2-2": "The central bank raised interest rates.",
  "example-3-1": "How do I reset my password?", "example-3-2": "I cannot log in to my account any more.",
  follow: "档位跟随 SLO", level: "档位", served: "实际服务", dense: "完整模型",
  facts: "{ms} 毫秒 · 跳过 {skipped} 的计算", "try-verdict": "{same}，速度为其 {times} 倍。",
  "same-answer": "与完整模型的答案相同", "other-answer": "与完整模型的答案不同", "embedding-agreement": "与完整模型的余弦 {value}",
};
const languages = { en: english, zh: chinese };

export function preferredLanguage() {
  return localStorage.getItem("language") ?? (navigator.language.startsWith("zh") ? "zh" : "en");
}

export function translator(language) {
  return (key, values = {}) => languages[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

export const percent = (ratio, digits = 1) => (ratio === null ? "–" : `${(100 * ratio).toFixed(digits)} %`);
export const limit = (ms) => `${Number(ms.toFixed(2))} ms`;
export const milliseconds = (ms) => (ms === undefined ? "–" : `${ms < 10 ? ms.toFixed(2) : ms < 100 ? ms.toFixed(1) : ms.toFixed(0)} ms`);
